"""Decides which numbers a policy names: by the number of their digits, never by a check digit.

Speech recognition confuses digits and miscounts repeated ones, so a spoken card's check digit is often wrong. A policy with
cards therefore masks every long run of digits that is not a quantity; check digits only choose the label.
"""

import re
from bisect import bisect_right
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Final as Const

from kaption.domain.redaction.quantities import counts_from_one, harmless, is_postal
from kaption.domain.redaction.spoken import Group, Run, normalise, scan

#: Fewest digits of an entity's number: a card of 13 with one lost, a local phone number, an IBAN of Norway.
LEAST: Const = {"CREDIT_CARD": 12, "IBAN_CODE": 12, "PHONE_NUMBER": 7, "US_SSN": 9, "US_ITIN": 9}
#: Fewest digits after the letters of an IBAN's country.
_LEAST_BEHIND_HEAD: Const = 8
#: Fewest digits of a number that the text calls a social security or tax number: recognition may lose one or two.
_LEAST_NAMED: Const = 7
_CARD: Const = range(13, 20)
_IBAN: Const = range(15, 35)
_LONGEST_PHONE: Const = 11
_NINE: Const = 9
#: How many characters before a number the words that name it may be.
CONTEXT: Const = 60
#: Fewest digits of an end that could still become a number for which it is masked, when a final can wait no longer.
_FEWEST_BEGUN: Const = 5

_CARD_PREFIX = re.compile(r"[1-6]|8[12]|9792")
_SECRET = re.compile(
    r"\b(?:card|account|iban|phone|telephone|mobile|cell|dial|fax|social|ssn|tax|call|reach|number is)\b", re.IGNORECASE
)
_SOCIAL = re.compile(r"\b(?:social|ssn|ssns|itin|tax)\b", re.IGNORECASE)
_POST = re.compile(r"\b(?:zip|postal|post ?codes?)\b", re.IGNORECASE)
_UUID = re.compile(r"(?<![0-9A-Za-z])[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}(?![0-9A-Za-z])")


@dataclass(frozen=True, slots=True)
class Number:
    """Characters ``[start, end)`` of a text that are a number of the policy, and its most likely entity."""

    start: int
    end: int
    entity: str


def numbers(view: str, entities: Collection[str]) -> tuple[Number, ...]:
    """Return the numbers in ``view``, normalised text, that a policy of ``entities`` names, in order."""
    if LEAST.keys().isdisjoint(entities):
        return ()
    ids = [found.span() for found in _UUID.finditer(view)]
    runs = (_without_names(view, run) for run in scan(view).runs)
    return tuple(
        Number(run.start, run.end, entity_of(view, run, entities))
        for run in runs
        if is_number(view, run, entities) and not _within(run, ids)
    )


def _without_names(view: str, run: Run) -> Run:
    """Remove from the run what is written together with letters, such as "MP3" and "x12345678y", unless that is a card.

    The rest is still a number: "gate B12. 4155550132".
    """
    if not any(group.name for group in run.groups) or (len(run.digits) in _CARD and luhn(run.digits)):
        return run
    pieces: list[list[Group]] = []
    for group in run.groups:
        if pieces and " " not in view[pieces[-1][-1].end : group.start]:
            pieces[-1].append(group)
        else:
            pieces.append([group])
    groups = [group for piece in pieces if not any(one.name for one in piece) for group in piece]
    start = groups[0].start if groups and groups[0] is not run.groups[0] else run.start
    return replace(run, start=start, groups=groups)


def _within(run: Run, spans: list[tuple[int, int]]) -> bool:
    index = bisect_right(spans, (run.start, run.start)) - 1
    return any(start <= run.start and run.end <= end for start, end in spans[max(0, index) : index + 2])


def is_number(view: str, run: Run, entities: Collection[str]) -> bool:
    """Whether a run has enough digits for one of ``entities`` and is no quantity."""
    count = run.count
    if count < _least(view, run, entities):
        return False
    before = _before(view, run)
    if is_postal(view, run) and _POST.search(before):
        return False
    return not harmless(view, run, lists=not (run.sure or _SECRET.search(before)))


def _least(view: str, run: Run, entities: Collection[str]) -> int:
    least = min((LEAST[entity] for entity in entities if entity in LEAST), default=len(view) + 1)
    if run.sure and "IBAN_CODE" in entities:
        least = min(least, _LEAST_BEHIND_HEAD)
    if least > _LEAST_NAMED and not {"US_SSN", "US_ITIN"}.isdisjoint(entities) and _SOCIAL.search(_before(view, run)):
        least = _LEAST_NAMED
    return least


def _before(view: str, run: Run) -> str:
    return view[max(0, run.start - CONTEXT) : run.start]


def begins_number(view: str, run: Run) -> bool:
    """Whether a run that is no number yet has too much of one to be shown where it may continue.

    Four digits are too few, an amount is harmless, and so is what the text calls a post code. Counting from one is harmless;
    other rising or falling digits may begin a number: "nine eight seven six five", and then "four one".
    """
    if run.count < _FEWEST_BEGUN or harmless(view, run, lists=False):
        return False
    before = _before(view, run)
    if counts_from_one(view, run) and not _SECRET.search(before):
        return False
    return run.count > _NINE or not _POST.search(before)


def entity_of(view: str, run: Run, entities: Collection[str]) -> str:
    """Return the most likely of ``entities`` for a number: by its check digits if they are right, otherwise by length."""
    digits = run.digits
    count = len(digits)
    likely = []
    if run.head and (run.sure or iban_valid(_compact(run))):
        likely.append("IBAN_CODE")
    if count in _CARD and luhn(digits) and _CARD_PREFIX.match(digits) and view[run.start] != "+":
        likely.append("CREDIT_CARD")
    if count == _NINE and (
        [len(group.digits) for group in run.groups] == [3, 2, 4] or _SOCIAL.search(_before(view, run))
    ):
        likely += ["US_ITIN", "US_SSN"] if digits[0] == "9" else ["US_SSN", "US_ITIN"]
    if count <= _LONGEST_PHONE or run.extension or view[run.start] == "+" or digits.startswith("0"):
        likely.append("PHONE_NUMBER")
    likely += ["CREDIT_CARD", "IBAN_CODE", "PHONE_NUMBER", "US_SSN", "US_ITIN"]
    return next(entity for entity in likely if entity in entities)


def _compact(run: Run) -> str:
    return run.head + "".join(group.digits for group in run.groups)


def luhn(digits: str) -> bool:
    """Whether a card's check digit (ISO/IEC 7812) is right."""
    total = 0
    for index, char in enumerate(reversed(digits)):
        value = int(char) * (2 if index % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def iban_valid(compact: str) -> bool:
    """Whether letters and digits without separators have an IBAN's length and check digits (ISO 13616, modulo 97)."""
    if len(compact) not in _IBAN or not compact.isascii() or not compact.isalnum():
        return False
    return int("".join(str(int(char, 36)) for char in compact[4:] + compact[:4])) % 97 == 1


def stand_in(text: str, entities: Collection[str]) -> str:
    """Return digits in place of those of a masked ``text``: their continuation is a number of ``entities`` too."""
    found = last_run(text)
    least = max((LEAST[entity] for entity in entities if entity in LEAST), default=_LEAST_NAMED)
    count, head = (found[1].count, found[1].head) if found else (0, "")
    return head + "5" * max(min(count, _IBAN.stop), least)


def last_run(text: str) -> tuple[str, Run] | None:
    """Return the normalised text and its last run, if that may continue after the end; the text's words are complete."""
    view = f"{normalise(text)} "
    runs = scan(view).runs
    return (view, runs[-1]) if runs and runs[-1].open else None
