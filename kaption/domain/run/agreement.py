"""Decides which words of a growing segment are stable: those on which its latest hypotheses agree.

LocalAgreement: Liu, Spanakis and Niehues, "Low-Latency Sequence-to-Sequence Speech Recognition and Translation by Partial
Hypothesis Selection", Interspeech 2020. There, two consecutive hypotheses decide. Ours may be only 0.4 s apart and make the
same mistake, so the oldest hypothesis that counts covers ``AGREE_SECONDS`` less audio. A disputed word is decided by
majority (ADR 12). Stable words never change (promise 3).
"""

import re
from collections import Counter
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Final as Const

from kaption.domain.decoding.port import SAMPLE_RATE
from kaption.domain.redaction.spoken import SCRIPTS

#: Seconds of audio by which two hypotheses must differ for their agreement to count.
AGREE_SECONDS: Const = 0.6
#: A disputed word becomes stable by majority once ``VOTERS`` hypotheses that span ``VOTE_SECONDS`` of audio have a word there.
VOTE_SECONDS: Const = 1.8
VOTERS: Const = 5
#: A word, or one letter of a script without spaces between words, with the punctuation after it. A space may precede it.
_UNIT = re.compile(rf" ?(?:[{SCRIPTS}][^\w\s]*|(?:(?![{SCRIPTS}])\S)+)")
_SCRIPT = re.compile(f"[{SCRIPTS}]")
_NOT_WORD = re.compile(r"[^\w]+")
_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_DIGITS = {word: str(number) for number, word in enumerate(_SMALL.split())}
_DIGITS |= {word: str(10 * number) for number, word in enumerate(_TENS.split(), 2)}


def plain(word: str) -> str:
    """A word without case and punctuation, with an English number in digits, so that changes of these do not reset agreement."""
    bare = _NOT_WORD.sub("", word.casefold())
    return _DIGITS.get(bare, bare) or word


def words_of(text: str) -> tuple[str, ...]:
    """Split ``text`` into the units of agreement: words, and single letters of scripts without spaces. ``joined`` undoes it."""
    out: list[str] = []
    for unit in _UNIT.findall(" ".join(text.split())):
        spaced = bool(out) and _SCRIPT.search(unit + out[-1])
        out.append(unit if spaced else unit.strip())
    return tuple(out)


def joined(words: Sequence[str]) -> str:
    """The text that ``words`` were taken from, with single spaces."""
    out: list[str] = []
    for word in words:
        parted = bool(out) and not _SCRIPT.search(word + out[-1])
        out.append(f" {word}" if parted else word)
    return "".join(out)


class Agreement:
    """The hypotheses of one segment. ``stable`` only grows; ``tail`` is the rest of the newest hypothesis."""

    def __init__(self) -> None:
        self.stable: tuple[str, ...] = ()
        self.tail: tuple[str, ...] = ()
        # For each hypothesis: the end of its audio, and its words after the stable ones. The list begins with the newest
        # hypothesis that spans the voting time.
        self._since: list[tuple[int, tuple[str, ...]]] = []

    def update(self, text: str, heard: int) -> None:
        """Take the newest hypothesis of the whole segment. Its audio ends at the 16 kHz position ``heard``."""
        # An earlier hypothesis of the same speech may cover more of the quiet after it.
        heard = max(heard, self._since[-1][0]) if self._since else heard
        words = words_of(text)
        rest = words[self._behind_stable(words) :]
        counting = self._heard_before(heard, AGREE_SECONDS)
        agreed = rest[: _agreed(counting, rest)]
        voters = self._heard_before(heard, VOTE_SECONDS)
        voted = _vote([said[len(agreed) :] for said in (*voters, rest)])
        if voted is not None:
            place = len(agreed) + 1
            behind = _agreed([said[place:] for said in counting], rest[place:])
            agreed = (*agreed, voted, *rest[place : place + behind])
        self.stable += agreed
        self.tail = rest[len(agreed) :]
        kept = self._since[-len(voters) :] if voters else self._since
        self._since = [*((end, said[len(agreed) :]) for end, said in kept), (heard, self.tail)]

    def _heard_before(self, heard: int, seconds: float) -> list[tuple[str, ...]]:
        """The newest hypothesis of at least ``seconds`` less audio, and all after it. Empty if there is none."""
        old = sum(heard - end >= seconds * SAMPLE_RATE for end, _ in self._since)
        return [said for _, said in self._since[old - 1 :]] if old else []

    def _behind_stable(self, words: Sequence[str]) -> int:
        """The index at which ``words`` continue after the stable words, even if some of those differ in ``words``."""
        done = [plain(word) for word in self.stable]
        now = [plain(word) for word in words]
        if now[: len(done)] == done:
            return len(done)
        # Continue after the last block of stable words that the hypothesis still has. Its length before that may differ.
        blocks = [
            block for block in SequenceMatcher(None, done, now, autojunk=False).get_matching_blocks() if block.size
        ]
        if not blocks:
            return min(len(done), len(now))
        last = blocks[-1]
        missing = len(done) - (last.a + last.size)
        return min(last.b + last.size + missing, len(now))


def _agreed(earlier: Sequence[tuple[str, ...]], newest: tuple[str, ...]) -> int:
    """The number of leading words of ``newest`` that all of ``earlier`` begin with. 0 if ``earlier`` is empty."""
    return min((_common(said, newest) for said in earlier), default=0)


def _vote(hypotheses: Sequence[tuple[str, ...]]) -> str | None:
    """The first word of more than half of ``hypotheses`` (oldest first), in the spelling of the newest of these."""
    first = [said[0] for said in hypotheses if said]
    if len(hypotheses) < VOTERS or len(first) < len(hypotheses):
        return None
    word, count = Counter(map(plain, first)).most_common(1)[0]
    return next(said for said in reversed(first) if plain(said) == word) if 2 * count > len(first) else None


def _common(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    """The number of leading words that both share."""
    count = 0
    for a, b in zip(one, other, strict=False):
        if plain(a) != plain(b):
            break
        count += 1
    return count
