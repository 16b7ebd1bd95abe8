"""Where the end of a text begins that could still grow into something to redact.

The rule for each entity is a superset of what its recogniser matches, and it looks only at what stands before: whenever
a finished text has a match at ``[s, e)``, every cut within the match has an open suffix that begins at ``s`` or before.
Spoken forms ("four one one one", "name at example dot com") will be further rules in ``_RULES``.
"""

import re
from collections.abc import Callable

from kaption.domain.numbers import IBAN_LENGTHS, normalise, runs

# Scripts without spaces between words: an address does not begin in them, or all of a Japanese text would be held.
_SCRIPTS = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_ADDRESS = re.compile(rf"(?:[!#$%&'*+\-/=?^_`{{|}}~.@]|(?![{_SCRIPTS}])\w)+")
_ADDRESS_CHAR = re.compile(_ADDRESS.pattern.removesuffix("+"))
_IBAN_SEPARATORS = " -.,/"
_S = r"[ \-.,/]*"
_IBAN = re.compile(rf"(?<![A-Z0-9])[A-Z](?:[A-Z]{_S}(?:\d{_S}(?:\d{_S}(?:[A-Z0-9]{_S})*)?)?)?\Z")
_IP_CHARS = frozenset("0123456789abcdefABCDEF:.")
_IP_ZONE = re.compile(r"(?:%[0-9A-Za-z]*)?(?:/\d*)?\Z")


def _tail(text: str, belongs: Callable[[str], bool]) -> int:
    at = len(text)
    while at and belongs(text[at - 1]):
        at -= 1
    return at


def _number(text: str) -> int:
    found = runs(text)
    return found[-1].start if found and found[-1].end == len(text) else len(text)


def _address(text: str) -> int:
    return _tail(text, lambda char: _ADDRESS_CHAR.match(char) is not None)


def _iban(text: str) -> int:
    at = _tail(text, lambda char: char in _IBAN_SEPARATORS or (char.isascii() and (char.isdigit() or char.isupper())))
    left = sum(char.isalnum() for char in text[at:])
    for start in range(at, len(text)):
        if left < IBAN_LENGTHS.stop and _IBAN.match(text, start):
            return start
        left -= text[start].isalnum()
    return len(text)


def _ip(text: str) -> int:
    zone = _IP_ZONE.search(text)
    head = text[: zone.start()] if zone else text
    at = _tail(head, _IP_CHARS.__contains__)
    # A number that begins within an address ("::1 202 ...") holds all of that address.
    return min(at if at < len(head) else len(text), _tail(text[: _number(text)], _IP_CHARS.__contains__))


_RULES: dict[str, Callable[[str], int]] = {
    "CREDIT_CARD": _number,
    "EMAIL_ADDRESS": _address,
    "IBAN_CODE": _iban,
    "IP_ADDRESS": _ip,
    "PHONE_NUMBER": _number,
    "US_ITIN": _number,
    "US_SSN": _number,
}

#: Every entity that a policy may name.
RECOGNISED = frozenset(_RULES)


def open_suffix(text: str, entities: tuple[str, ...]) -> int:
    """Where the end of ``text`` starts that could still grow into one of ``entities``; ``len(text)`` when none can.

    Raises ``KeyError`` for an entity that is not in ``RECOGNISED``.
    """
    view = normalise(text)
    return min((rule(view) for rule in {_RULES[entity] for entity in entities}), default=len(text))


def address_run(text: str, at: int) -> tuple[int, int]:
    """Characters ``[start, end)`` around ``at`` that an address could take in; ``at`` must be one of them."""
    start = _address(text[: at + 1])
    found = _ADDRESS.match(text, start)
    return (start, found.end()) if found else (at, at)


def sensitive_from(text: str, entities: tuple[str, ...], settled: int) -> int:
    """Where the first number of five or more digits, or word with "@", begins that reaches beyond ``settled``.

    A hypothesis that is not agreed on yet may break a number with a word that was never said; ``len(text)`` if none.
    """
    view = normalise(text)
    found = [len(text)]
    if set(entities) - {"EMAIL_ADDRESS"}:
        found += [
            run.start
            for run in runs(view)
            if run.end > settled and sum(map(str.isdigit, view[run.start : run.end])) >= 5
        ]
    if "EMAIL_ADDRESS" in entities:
        found += [word.start() for word in _ADDRESS.finditer(view) if word.end() > settled and "@" in word.group()]
    return min(found)
