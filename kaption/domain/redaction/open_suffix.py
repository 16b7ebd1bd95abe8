"""Where the end of a text begins that could still grow into something to redact.

The rule for each entity is a superset of what is found of it, and it looks only at what stands before: whenever a finished
text has a match at ``[s, e)``, every cut within the match has an open suffix that begins at ``s`` or before.
"""

import re
from collections.abc import Callable

from kaption.domain.redaction.addresses import open_address, signs_beyond
from kaption.domain.redaction.spoken import normalise, scan

_IP_CHARS = frozenset("0123456789abcdefABCDEF:.")
_IP_ZONE = re.compile(r"(?:%[0-9A-Za-z]*)?(?:/\d*)?\Z")
#: A run of so many digits is withheld while the words around it are not agreed on.
_SENSITIVE_DIGITS = 5


def _number(view: str) -> int:
    return scan(view).open


def _ip(view: str) -> int:
    # Longer stretches before the end hold no address: a zone and a prefix length are short.
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

#: Every entity that a policy may name.
RECOGNISED = frozenset(_RULES)


def open_suffix(text: str, entities: tuple[str, ...]) -> int:
    """Where the end of ``text`` starts that could still grow into one of ``entities``; ``len(text)`` when none can.

    Raises ``KeyError`` for an entity that is not in ``RECOGNISED``.
    """
    view = normalise(text)
    return min((rule(view) for rule in {_RULES[entity] for entity in entities}), default=len(text))


def sensitive_from(text: str, entities: tuple[str, ...], settled: int) -> int:
    """Where the first number of five or more digits, or name before an "@", begins that reaches beyond ``settled``.

    A hypothesis that is not agreed on yet may break a number with a word that was never said; ``len(text)`` if none.
    """
    view = normalise(text)
    found = [len(text)]
    if set(entities) - {"EMAIL_ADDRESS"}:
        found += [run.start for run in scan(view).runs if run.end > settled and run.count >= _SENSITIVE_DIGITS]
    if "EMAIL_ADDRESS" in entities:
        found.append(signs_beyond(view, settled))
    return min(found)
