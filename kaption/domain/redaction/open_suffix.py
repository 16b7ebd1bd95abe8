"""Finds the open suffix of a text: the end that could still grow into something to redact.

Each entity's rule covers at least what the finder finds, and uses only text before the end: if a finished text has a match
at ``[s, e)``, the open suffix of every truncation within the match begins at ``s`` or before.
"""

import re
from collections.abc import Callable

from kaption.domain.redaction.addresses import open_address, signs_beyond
from kaption.domain.redaction.spoken import normalise, scan

_IP_CHARS = frozenset("0123456789abcdefABCDEF:.")
_IP_ZONE = re.compile(r"(?:%[0-9A-Za-z]*)?(?:/\d*)?\Z")
#: Digits from which a run is withheld while hypotheses disagree about the words around it.
_SENSITIVE_DIGITS = 5


def _number(view: str) -> int:
    return scan(view).open


def _ip(view: str) -> int:
    # Farther before the end there is no address: a zone and a prefix length are short.
    zone = _IP_ZONE.search(view, max(0, len(view) - 64))
    head = view[: zone.start()] if zone else view
    at = _tail(head)
    # A number that begins within an address ("::1 202 ...") holds all of that address.
    return min(at if at < len(head) else len(view), _tail(view[: _number(view)]))


def _tail(text: str) -> int:
    at = len(text)
    while at and text[at - 1] in _IP_CHARS:
        at -= 1
    return at


_RULES: dict[str, Callable[[str], int]] = {
    "CREDIT_CARD": _number,
    "EMAIL_ADDRESS": open_address,
    "IBAN_CODE": _number,
    "IP_ADDRESS": _ip,
    "PHONE_NUMBER": _number,
    "US_ITIN": _number,
    "US_SSN": _number,
}

#: All entities that a policy may name.
RECOGNISED = frozenset(_RULES)


def open_suffix(text: str, entities: tuple[str, ...]) -> int:
    """Return the start of the end of ``text`` that could still grow into one of ``entities``; ``len(text)`` if none can.

    Raises ``KeyError`` for an entity that is not in ``RECOGNISED``.
    """
    view = normalise(text)
    return min((rule(view) for rule in {_RULES[entity] for entity in entities}), default=len(text))


def sensitive_from(text: str, entities: tuple[str, ...], settled: int) -> int:
    """Return the start of the first number of five or more digits, or name before an "@", that reaches beyond ``settled``.

    Beyond it a hypothesis may break a number with a word that was never said. ``len(text)`` if there is none.
    """
    view = normalise(text)
    found = [len(text)]
    if set(entities) - {"EMAIL_ADDRESS"}:
        found += [run.start for run in scan(view).runs if run.end > settled and run.count >= _SENSITIVE_DIGITS]
    if "EMAIL_ADDRESS" in entities:
        found.append(signs_beyond(view, settled))
    return min(found)
