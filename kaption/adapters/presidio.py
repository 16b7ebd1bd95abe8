"""Finds numbers and mail addresses by the domain's rules, and IP addresses by Presidio's patterns, without engine or model.

Presidio's recognisers of cards, IBANs and phone numbers expect typed text and reject a wrong check digit; in recognised
speech they would leave half of the numbers in clear. Presidio's engine would load, and even download, a language model.
"""

import logging

from presidio_analyzer.predefined_recognizers import IpRecognizer

from kaption.domain.redaction.addresses import addresses
from kaption.domain.redaction.matches import Match, merge
from kaption.domain.redaction.numbers import numbers
from kaption.domain.redaction.open_suffix import RECOGNISED, open_suffix
from kaption.domain.redaction.spoken import normalise

#: Lowest score of Presidio's patterns that are used; those below match too much, such as "::".
THRESHOLD = 0.4


class PresidioRedactor:
    """Finds cards, IBANs, phone numbers, mail and IP addresses and US tax numbers. Stateless; threads may share it."""

    def __init__(self) -> None:
        # Presidio logs the text of a match that it could not check.
        logging.getLogger("presidio-analyzer").setLevel(logging.CRITICAL + 1)
        self._ip = IpRecognizer()

    def find(self, text: str, entities: tuple[str, ...]) -> tuple[Match, ...]:
        """Return complete matches, sorted, not overlapping. Raises ``ValueError`` for an unknown entity."""
        if unknown := set(entities) - RECOGNISED:
            raise ValueError(f"no recogniser for {', '.join(sorted(unknown))}")
        view = normalise(text)
        found: list[Match] = []
        if "IP_ADDRESS" in entities:
            results = self._ip.analyze(view, ["IP_ADDRESS"])
            found += [Match("IP_ADDRESS", result.start, result.end) for result in results if result.score >= THRESHOLD]
        found += [Match(number.entity, number.start, number.end) for number in numbers(view, entities)]
        if "EMAIL_ADDRESS" in entities:
            found += [Match("EMAIL_ADDRESS", start, end) for start, end in addresses(view)]
        return merge(found)

    def open_suffix(self, text: str, entities: tuple[str, ...]) -> int:
        """Return the start of the end of ``text`` that could still grow into a match; ``len(text)`` if none can."""
        return open_suffix(text, entities)
