"""Presidio's pattern recognisers behind the text redactor's port; no engine, no spaCy model, no network.

The recognisers are run one by one: Presidio's own engine would load (and download) a language model.
"""

import logging
import re
from collections.abc import Iterator
from functools import lru_cache

import tldextract
from presidio_analyzer import PatternRecognizer
from presidio_analyzer.predefined_recognizers import (
    CreditCardRecognizer,
    EmailRecognizer,
    IbanRecognizer,
    IpRecognizer,
    PhoneRecognizer,
    UsItinRecognizer,
    UsSsnRecognizer,
)

from kaption.domain import numbers
from kaption.domain.numbers import Span
from kaption.domain.open_suffix import RECOGNISED, address_run, open_suffix
from kaption.domain.redaction import Match, merge

#: A phone number scores 0.4 and a number without a check digit that looks its part 0.5; "very weak" patterns, such as any
#: nine digits, score 0.05 and count only after one of the recogniser's context words.
THRESHOLD = 0.4
#: How far before a weak match a context word ("social security") may stand, in characters.
CONTEXT_REACH = 60
#: Whose numbers are found without a country code; with one ("+39 ...") those of every country are.
REGIONS = ("US", "GB", "DE", "FR", "IN", "AU", "BR")
#: Fewer digits are no valid phone number of any of these regions.
_PHONE_DIGITS = 7
#: A region costs phonenumbers some 0.3 ms a number, and a text that grows asks again for those that it had before.
_PHONE_CACHE = 512
#: An address is at most 254 characters (RFC 5321); what stands farther from its "@" is not looked at.
_ADDRESS_REACH = 256
_AT_DOMAIN = re.compile(r"(?<=[^\s@])@(?=[\w\-]+\.\w)")
_SEARCHED = ("CREDIT_CARD", "IBAN_CODE", "IP_ADDRESS", "US_ITIN", "US_SSN")
_NUMBERS = frozenset({"CREDIT_CARD", "PHONE_NUMBER", "US_ITIN", "US_SSN"})


class _OfflineEmail(EmailRecognizer):
    """Presidio's, except that the list of top-level domains is the one in the package: its own fetches a newer one."""

    def __init__(self) -> None:
        super().__init__()
        self._domains = tldextract.TLDExtract(cache_dir=None, suffix_list_urls=())
        self._domains("example.com")  # reads the list now, not at the first caption

    def validate_result(self, pattern_text: str) -> bool:
        """Whether the domain ends in a known suffix."""
        return bool(self._domains(pattern_text).fqdn)


class PresidioRedactor:
    """Finds cards, IBANs, phone numbers, mail and IP addresses and US tax numbers; stateless, safe to share by threads."""

    def __init__(self, regions: tuple[str, ...] = REGIONS) -> None:
        # It logs the text of a match it could not check.
        logging.getLogger("presidio-analyzer").setLevel(logging.CRITICAL + 1)
        self._email = _OfflineEmail()
        phone = PhoneRecognizer(supported_regions=regions)

        @lru_cache(maxsize=_PHONE_CACHE)
        def phones(text: str) -> tuple[Span, ...]:
            return tuple(Span(found.start, found.end) for found in phone.analyze(text, ["PHONE_NUMBER"]))

        self._phones_of = phones
        self._searched: dict[str, PatternRecognizer] = {
            "CREDIT_CARD": CreditCardRecognizer(),
            "IBAN_CODE": IbanRecognizer(),
            "IP_ADDRESS": IpRecognizer(),
            "US_ITIN": UsItinRecognizer(),
            "US_SSN": UsSsnRecognizer(),
        }

    def find(self, text: str, entities: tuple[str, ...]) -> tuple[Match, ...]:
        """Complete matches, sorted, not overlapping. Raises ``ValueError`` for an entity that is not recognised."""
        if unknown := set(entities) - RECOGNISED:
            raise ValueError(f"no recogniser for {', '.join(sorted(unknown))}")
        view = numbers.normalise(text)
        found: list[Match] = []
        if "EMAIL_ADDRESS" in entities and "@" in view:
            found += self._addresses(view)
        if any(char.isdigit() for char in view) or (":" in view and "IP_ADDRESS" in entities):
            found += self._digits(view, entities)
        return merge(found)

    def open_suffix(self, text: str, entities: tuple[str, ...]) -> int:
        """Where the end of ``text`` starts that could still grow into a match; ``len(text)`` when none can."""
        return open_suffix(text, entities)

    def _digits(self, view: str, entities: tuple[str, ...]) -> Iterator[Match]:
        runs = numbers.runs(view)
        for found in self._recognised(view, entities, runs):
            yield _clip(found, runs) if found.entity in _NUMBERS else found
        collapsed, where = numbers.collapse(view)
        if collapsed != view:
            for found in self._recognised(collapsed, entities, numbers.runs(collapsed)):
                if numbers.spoken_as_one(numbers.groups(collapsed[found.start : found.end])):
                    match = Match(found.entity, where[found.start], where[found.end - 1] + 1)
                    yield _clip(match, runs) if match.entity in _NUMBERS else match
        if "CREDIT_CARD" in entities:
            yield from (Match("CREDIT_CARD", card.start, card.end) for card in numbers.cards(view, runs))
        if "IBAN_CODE" in entities:
            yield from (Match("IBAN_CODE", iban.start, iban.end) for iban in numbers.ibans(view))
        if "US_SSN" in entities:
            yield from self._nine_digits(view, runs)

    def _recognised(self, view: str, entities: tuple[str, ...], runs: tuple[Span, ...]) -> Iterator[Match]:
        for entity in _SEARCHED:
            if entity not in entities:
                continue
            recogniser = self._searched[entity]
            for result in recogniser.analyze(view, [entity]):
                if result.score >= THRESHOLD or _in_context(view, result.start, recogniser.context):
                    yield Match(entity, result.start, result.end)
        if "PHONE_NUMBER" in entities:
            yield from self._phones(view, runs)

    def _phones(self, view: str, runs: tuple[Span, ...]) -> Iterator[Match]:
        for run in runs:
            if numbers.count_digits(view[run.start : run.end]) < _PHONE_DIGITS:
                continue
            # Two characters on either side: phonenumbers refuses digits of a word or of an amount of money.
            base = max(0, run.start - 2)
            for found in self._phones_of(view[base : run.end + 2]):
                yield Match("PHONE_NUMBER", base + found.start, base + found.end)

    def _nine_digits(self, view: str, runs: tuple[Span, ...]) -> Iterator[Match]:
        """A social security number digit by digit, where the text says that it is one."""
        context = self._searched["US_SSN"].context
        for run in runs:
            said = view[run.start : run.end].rstrip(" .,;:-extinsoEXTINSO")
            if numbers.count_digits(said) == 9 and _in_context(view, run.start, context):
                yield Match("US_SSN", run.start, run.start + len(said))

    def _addresses(self, view: str) -> Iterator[Match]:
        after = 0
        for sign in _AT_DOMAIN.finditer(view):
            at = sign.start()
            start, end = address_run(view, at)
            low, high = max(start, after, at - _ADDRESS_REACH), min(end, at + _ADDRESS_REACH)
            after = at + 1
            for result in self._email.analyze(view[low:high], ["EMAIL_ADDRESS"]):
                # From the run's start: what stands before the match in the same word was withheld with it.
                yield Match("EMAIL_ADDRESS", start, low + result.end)


def _in_context(view: str, start: int, words: list[str]) -> bool:
    before = view[max(0, start - CONTEXT_REACH) : start].lower()
    return any(word in before for word in words)


def _clip(match: Match, runs: tuple[Span, ...]) -> Match:
    """The match within the run that it starts in, so that nothing of it was ever outside an open suffix."""
    for run in runs:
        if run.start <= match.start < run.end:
            return Match(match.entity, match.start, min(match.end, run.end))
    return match
