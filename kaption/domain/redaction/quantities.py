"""Decides which runs of digits are quantities, not numbers of a policy: years, amounts, dates, times, lists of small numbers.

A run is harmless only if all of it is quantities; a card next to a year is not. A longer run needs stronger evidence, since
people also read cards and phone numbers out in pairs and with commas.
"""

import re
from dataclasses import dataclass
from enum import Enum, auto
from itertools import pairwise
from typing import Final as Const

from kaption.domain.redaction.spoken import Group, Run

#: Digits from which a run may be a card, an IBAN, or what is left of one.
LONG: Const = 12
_MOST_PLAIN: Const = 9
_DAYS: Const = 31
_MONTHS: Const = 12
_HOURS: Const = 24
_MINUTES: Const = 60
_FEW: Const = 4
_COUNT_FROM: Const = 4
_BESIDE: Const = 2

_GLUE = frozenset(",.:/-'")
_LIST = re.compile(
    r"\s*(?:[,;\u3001\uff0c\u060c]\s*(?:(?:and|und|et|y)\b)?|(?:and|und|et|y|&)(?!\w))\s*[$\u20ac\u00a3\u00a5\u20b9]?",
    re.IGNORECASE,
)
_AND = re.compile(r"and|und|\bet\b|\by\b|&", re.IGNORECASE)
_THOUSANDS = re.compile(r"([1-9]\d{0,2}(?:,\d{3})+)(?:\.\d{1,2})?")
_DOT_THOUSANDS = re.compile(r"[1-9]\d{0,2}(?:[.']\d{3})*[.']000")
_DECIMAL = re.compile(r"\d{1,6}\.\d{1,2}|\d{1,2}\.\d{1,6}")
_DATE = re.compile(r"(\d{1,2})([-./])(\d{1,2})\2(\d{2}|[12]\d{3})|([12]\d{3})([-./])(\d{1,2})\6(\d{1,2})")
_DAY = re.compile(r"(\d{1,2})/(\d{1,2})")
_TIME = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?")
_YEAR = re.compile(r"(?:1[0-9]|20)\d\d(?:[-/](?:1[0-9]|20)?\d\d)?")
_ROUND = re.compile(r"[1-9]\d{0,4}00")
_RANGE = re.compile(r"[1-9]\d{0,2}-[1-9]\d{0,2}")
_SMALL = re.compile(r"0|[1-9]\d{0,2}")
_HOST = re.compile(r"(?=.*\d{3})(?:(?:1?\d?\d|2[0-4]\d|25[0-5])(?:\.(?!$)|$)){4}")
_POSTAL = re.compile(r"\d{5}-\d{4}")
_MONEY_BEFORE = "$\u20ac\u00a3\u00a5\u20b9"


class _Kind(Enum):
    AMOUNT = auto()  # with separators of thousands, a currency, or "thousand" in words
    DATE = auto()
    DAY = auto()
    HOST = auto()
    TIME = auto()
    YEAR = auto()
    ROUND = auto()
    DECIMAL = auto()
    RANGE = auto()
    SMALL = auto()


_SURE = frozenset({_Kind.AMOUNT, _Kind.DATE, _Kind.HOST, _Kind.TIME, _Kind.YEAR})
_VAGUE = frozenset({_Kind.RANGE, _Kind.SMALL})


@dataclass(frozen=True, slots=True)
class _Item:
    kind: _Kind
    value: float


def harmless(view: str, run: Run, *, lists: bool = True) -> bool:
    """Whether all of ``run`` is quantities. ``lists``: small numbers in a list or a count are, unless the text says otherwise."""
    found = _items(view, run)
    if found is None:
        return False
    items, gaps = found
    if run.count >= LONG:
        return _long(items, gaps, lists=lists)
    kinds = {item.kind for item in items}
    listed = all(map(_LIST.fullmatch, gaps))
    if not kinds & _VAGUE:
        return len(items) == 1 or listed or kinds <= _SURE
    if listed and [item.kind for item in items] == [_Kind.SMALL, _Kind.YEAR] and items[0].value <= _DAYS:
        return True
    return lists and (_counts(items) or (listed and _list(items, gaps)))


def _long(items: list[_Item], gaps: list[str], *, lists: bool) -> bool:
    """Whether a run with a card's digits is only years, amounts or dates, or a list that rises or falls."""
    kinds = {item.kind for item in items}
    if kinds <= {_Kind.YEAR} or (kinds == {_Kind.DATE} and len(items) > 1):
        return True
    listed = all(map(_LIST.fullmatch, gaps))
    if listed and (kinds <= {_Kind.AMOUNT, _Kind.ROUND, _Kind.YEAR} or (kinds == {_Kind.TIME} and _sorted(items, 3))):
        return True
    return lists and (_counts(items) or (listed and _sorted(items)))


def _list(items: list[_Item], gaps: list[str]) -> bool:
    values = [item.value for item in items]
    if _sorted(items) or all(value % 10 == 0 for value in values):
        return True
    if gaps and _AND.search(gaps[-1]) and not any(map(_AND.search, gaps[:-1])):
        return True
    return all(item.kind is _Kind.RANGE for item in items)


def _sorted(items: list[_Item], fewest: int = _FEW) -> bool:
    steps = [b.value - a.value for a, b in pairwise(items)]
    return len(items) >= fewest and (all(step > 0 for step in steps) or all(step < 0 for step in steps))


def _counts(items: list[_Item]) -> bool:
    """Whether the speaker counts up or down, by ones or more, so that no separators are needed. A few other numbers may be there."""
    longest = length = 1
    last = 0.0
    for one, other in pairwise(items):
        step = other.value - one.value
        length = 1 if step == 0 else length + 1 if step == last else 2
        longest, last = max(longest, length), step
    beside = _BESIDE if longest >= _COUNT_FROM + _BESIDE else 0
    return longest >= _COUNT_FROM and len(items) - longest <= beside


def counts_from_one(view: str, run: Run) -> bool:
    """Whether the speaker only counts from one on: such digits reveal nothing."""
    found = _items(view, run)
    return found is not None and [item.value for item in found[0]] == list(range(1, len(found[0]) + 1))


def _items(view: str, run: Run) -> tuple[list[_Item], list[str]] | None:
    """Return the quantities of a run and the text between them; None if it contains anything else."""
    items: list[_Item] = []
    gaps: list[str] = []
    end = None
    if any(group.letters for group in run.groups):
        return None
    for chunk in _chunks(view, run.groups):
        item = _item(view, chunk)
        if item is None:
            return None
        if end is not None:
            gaps.append(view[end : chunk[0].start])
        items.append(item)
        end = chunk[-1].end
    return items, gaps


def _chunks(view: str, groups: list[Group]) -> list[list[Group]]:
    """Join groups that are written as one: with a sign and no space between, or as the two halves of a year in words."""
    out: list[list[Group]] = []
    for group in groups:
        last = out[-1][-1] if out else None
        gap = view[last.end : group.start] if last else ""
        words = last is not None and last.spoken and group.spoken and gap.strip(" -") == ""
        glued = last is not None and not last.spoken and not group.spoken and len(gap) == 1 and gap in _GLUE
        if last and (glued or (words and len(out[-1]) == 1 and _century(last, group))):
            out[-1].append(group)
        else:
            out.append([group])
    return out


def _century(first: Group, second: Group) -> bool:
    return len(first.digits) == 2 and 10 <= int(first.digits) <= 20 and len(second.digits) == 2


def _item(view: str, chunk: list[Group]) -> _Item | None:
    digits = "".join(group.digits for group in chunk)
    value = float(digits[:15] or 0)
    if chunk[0].spoken:
        kind = _said(chunk, digits)
    else:
        kind = _written(view[chunk[0].start : chunk[-1].end], digits, view[chunk[0].start - 1 : chunk[0].start])
    return None if kind is None else _Item(kind, value)


def _said(chunk: list[Group], digits: str) -> _Kind | None:
    if len(chunk) > 1:
        return _Kind.YEAR
    if chunk[0].scaled:
        return _Kind.AMOUNT
    return _Kind.SMALL if _SMALL.fullmatch(digits) else None


def _written(text: str, digits: str, before: str) -> _Kind | None:
    amount = _THOUSANDS.fullmatch(text)
    if amount:
        return _Kind.AMOUNT if len(digits) <= _MOST_PLAIN or amount[1].endswith("000") else None
    if _DOT_THOUSANDS.fullmatch(text) or (before and before in _MONEY_BEFORE and len(digits) <= _MOST_PLAIN):
        return _Kind.AMOUNT
    if _is_date(text):
        return _Kind.DATE if _DATE.fullmatch(text) else _Kind.DAY
    if _is_time(text):
        return _Kind.TIME
    for kind, pattern in _PATTERNS:
        if pattern.fullmatch(text):
            return kind
    return None


_PATTERNS = (
    (_Kind.YEAR, _YEAR),
    (_Kind.HOST, _HOST),
    (_Kind.DECIMAL, _DECIMAL),
    (_Kind.ROUND, _ROUND),
    (_Kind.RANGE, _RANGE),
    (_Kind.SMALL, _SMALL),
)


def _is_date(text: str) -> bool:
    found = _DATE.fullmatch(text)
    short = _DAY.fullmatch(text)
    if found:
        one, other = (found[1], found[3]) if found[1] else (found[7], found[8])
    elif short:
        one, other = short[1], short[2]
    else:
        return False
    low, high = sorted((int(one), int(other)))
    return 0 < low <= _MONTHS and high <= _DAYS


def _is_time(text: str) -> bool:
    found = _TIME.fullmatch(text)
    return found is not None and int(found[1]) <= _HOURS and int(found[2]) < _MINUTES


def is_postal(view: str, run: Run) -> bool:
    """Whether a run is written as an American post code of nine digits, such as "90210-1234"."""
    return _POSTAL.fullmatch(view, run.start, run.end) is not None
