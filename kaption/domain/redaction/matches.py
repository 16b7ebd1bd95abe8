"""Defines the port of text redaction: matches in a finished text, and the open end of a growing one."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Match:
    """Characters ``[start, end)`` of a text that are an ``entity``, by Presidio's name, such as ``CREDIT_CARD``."""

    entity: str
    start: int
    end: int


class TextRedactor(Protocol):
    """Finds the entities of a run's policy; an empty tuple of ``entities`` finds nothing."""

    def find(self, text: str, entities: tuple[str, ...]) -> tuple[Match, ...]:
        """Return complete matches, sorted, not overlapping."""

    def open_suffix(self, text: str, entities: tuple[str, ...]) -> int:
        """Return the start of the end of ``text`` that could still grow into a match; ``len(text)`` if none can."""


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
    """Sort matches and join overlapping ones under the name of the longest."""
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
