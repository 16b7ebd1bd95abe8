"""The port of text redaction: what masks a finished text, and what may not be shown yet of one that still grows."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Match:
    """Characters ``[start, end)`` of a text that are an ``entity`` (Presidio's name, for example ``CREDIT_CARD``)."""

    entity: str
    start: int
    end: int


class TextRedactor(Protocol):
    """Finds what a policy names. ``entities`` are those of the run's policy; an empty tuple finds nothing."""

    def find(self, text: str, entities: tuple[str, ...]) -> tuple[Match, ...]:
        """Complete matches, sorted, not overlapping."""

    def open_suffix(self, text: str, entities: tuple[str, ...]) -> int:
        """Where the end of ``text`` starts that could still grow into a match; ``len(text)`` when none can."""


@dataclass(frozen=True, slots=True)
class Redacted:
    """A text with its matches replaced by ``[ENTITY]``; ``matches`` are positions in the new text."""

    text: str
    matches: tuple[Match, ...]


def mask(text: str, matches: tuple[Match, ...]) -> Redacted:
    """Replace each match by its entity in brackets."""
    out, spans, at, length = [], [], 0, 0
    for match in matches:
        label = f"[{match.entity}]"
        out += [text[at : match.start], label]
        length += match.start - at
        spans.append(Match(match.entity, length, length + len(label)))
        length += len(label)
        at = match.end
    out.append(text[at:])
    return Redacted("".join(out), tuple(spans))


def merge(matches: Iterable[Match]) -> tuple[Match, ...]:
    """Matches sorted, with those that overlap made one under the name of the longest of them."""
    out: list[Match] = []
    longest = 0
    for match in sorted(matches, key=lambda m: (m.start, -m.end)):
        length = match.end - match.start
        if out and match.start < out[-1].end:
            last = out[-1]
            entity = match.entity if length > longest else last.entity
            out[-1] = Match(entity, last.start, max(last.end, match.end))
            longest = max(longest, length)
        else:
            out.append(match)
            longest = length
    return tuple(out)
