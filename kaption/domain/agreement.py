"""Which words of a growing segment are stable: those that two hypotheses in a row agree on.

LocalAgreement-2: Liu, Spanakis and Niehues, "Low-Latency Sequence-to-Sequence Speech Recognition and Translation by
Partial Hypothesis Selection", Interspeech 2020. What was agreed once never changes (promise 3).
"""

import re
from difflib import SequenceMatcher

_NOT_WORD = re.compile(r"[^\w]+")


def plain(word: str) -> str:
    """A word without case and punctuation, so that their flips do not reset agreement."""
    return _NOT_WORD.sub("", word.casefold()) or word


class Agreement:
    """The hypotheses of one segment. ``stable`` only grows; ``tail`` is the rest of the newest hypothesis."""

    def __init__(self) -> None:
        self.stable: tuple[str, ...] = ()
        self.tail: tuple[str, ...] = ()

    def update(self, text: str) -> None:
        """Take the newest hypothesis of the whole segment."""
        words = text.split()
        rest = tuple(words[self._behind_stable(words) :])
        agreed = 0
        for old, new in zip(self.tail, rest, strict=False):
            if plain(old) != plain(new):
                break
            agreed += 1
        self.stable += rest[:agreed]
        self.tail = rest[agreed:]

    def _behind_stable(self, words: list[str]) -> int:
        """Where ``words`` continue behind the stable ones, also where they now say some of those otherwise."""
        done = [plain(word) for word in self.stable]
        now = [plain(word) for word in words]
        if now[: len(done)] == done:
            return len(done)
        # Behind the last run of stable words that the hypothesis still has; it may be longer or shorter before that.
        blocks = [
            block for block in SequenceMatcher(None, done, now, autojunk=False).get_matching_blocks() if block.size
        ]
        if not blocks:
            return min(len(done), len(now))
        last = blocks[-1]
        missing = len(done) - (last.a + last.size)
        return min(last.b + last.size + missing, len(now))
