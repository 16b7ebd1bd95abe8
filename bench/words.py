"""Computes the latencies of words and how often shown words were revised, in the same way for Kaption and for peers."""

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import pairwise

from bench.speech import Heard
from kaption.domain.run.agreement import plain

#: Seconds by which a record may end before the end of a word that it shows.
SLACK = 0.3


@dataclass(frozen=True, slots=True, order=True)
class Showing:
    """One record of a stream: its arrival, the seconds of the stream that it covers, its text, and the stable part.

    ``at`` is in seconds from the moment when the stream's first sample was spoken. A later record of the same ``segment``
    replaces an earlier one.
    """

    at: float
    segment: int
    start: float
    end: float
    text: str
    stable: str


def latencies(showings: Iterable[Showing], heard: Heard, begin: float) -> tuple[list[float], list[float]]:
    """Return the seconds from each word's end until it was shown, and until it was committed, for words that end after ``begin``.

    Words are matched by their text, among those spoken in the record's range.
    """
    shown: dict[int, float] = {}
    committed: dict[int, float] = {}
    for showing in sorted(showings):
        near = [i for i, (_, ends) in enumerate(heard.words) if showing.start <= ends <= showing.end + SLACK]
        spoken = [plain(heard.words[i][0]) for i in near]
        for text, seen in ((showing.text, shown), (showing.stable, committed)):
            matcher = SequenceMatcher(a=spoken, b=list(map(plain, text.split())), autojunk=False)
            for block in matcher.get_matching_blocks():
                for i in near[block.a : block.a + block.size]:
                    seen.setdefault(i, showing.at - heard.words[i][1])
    late = {i for i, (_, ends) in enumerate(heard.words) if ends >= begin}
    return [v for i, v in shown.items() if i in late], [v for i, v in committed.items() if i in late]


def erased(showings: Iterable[Showing]) -> int:
    """Count revisions: shown words that a later record of the same segment changes or removes.

    For each record, these are the previous record's words after the common beginning. Over the words of the final text this is
    the normalized erasure of Arivazhagan, Cherry, Macherey and Foster, "Re-translation versus Streaming for Simultaneous
    Translation", IWSLT 2020 (arXiv 2004.03643): 0 for text that only grows. Case and punctuation do not count.
    """
    return sum(_erasures(showings))


def flicker(streams: Iterable[Iterable[Showing]]) -> float:
    """Return the share of records after the first of their segment that change or remove a shown word."""
    erasures = [count for showings in streams for count in _erasures(showings)]
    return sum(map(bool, erasures)) / max(1, len(erasures))


def _erasures(showings: Iterable[Showing]) -> list[int]:
    """Return, for each record after the first of its segment, the number of shown words that it changes or removes."""
    segments: dict[int, list[list[str]]] = {}
    for showing in sorted(showings):
        segments.setdefault(showing.segment, []).append([plain(word) for word in showing.text.split()])
    return [len(before) - _common(before, after) for texts in segments.values() for before, after in pairwise(texts)]


def _common(before: list[str], after: list[str]) -> int:
    """Return the number of words in the common beginning."""
    for count, (old, new) in enumerate(zip(before, after, strict=False)):
        if old != new:
            return count
    return min(len(before), len(after))


def percentile(values: list[float], share: float) -> float:
    """Return the value that ``share`` of ``values`` do not exceed."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else float("nan")
