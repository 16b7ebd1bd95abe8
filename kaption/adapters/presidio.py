"""The text redactor: numbers and mail addresses by the domain's own rules, IP addresses by Presidio's patterns; no engine, no model.

Presidio's recognisers of cards, IBANs and phone numbers expect what a keyboard writes, and take a number with a wrong check
digit for none; of what is heard that leaves half in clear. Its own engine would load (and download) a language model.
"""

import logging

from presidio_analyzer.predefined_recognizers import IpRecognizer

from kaption.domain.redaction.addresses import addresses
from kaption.domain.redaction.matches import Match, merge
from kaption.domain.redaction.numbers import numbers
from kaption.domain.redaction.open_suffix import RECOGNISED, open_suffix
from kaption.domain.redaction.spoken import normalise

#: Below it are Presidio's patterns that match what may be anything, such as "::".
THRESHOLD = 0.4


class PresidioRedactor:
    """Finds cards, IBANs, phone numbers, mail and IP addresses and US tax numbers; stateless, safe to share by threads."""

    def __init__(self) -> None:
        # It logs the text of a match it could not check.
        logging.getLogger("presidio-analyzer").setLevel(logging.CRITICAL + 1)
        self._ip = IpRecognizer()

    def find(self, text: str, entities: tuple[str, ...]) -> tuple[Match, ...]:
        """Complete matches, sorted, not overlapping. Raises ``ValueError`` for an entity that is not recognised."""
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
        """Where the end of ``text`` starts that could still grow into a match; ``len(text)`` when none can."""
        return open_suffix(text, entities)
