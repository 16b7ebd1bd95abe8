"""Masks over the texts and words of finals that are published together, and what of a growing text may be shown."""

from dataclasses import dataclass

from kaption.domain.decoding import Decoded, DecodedWord
from kaption.domain.numbers import normalise, runs
from kaption.domain.open_suffix import sensitive_from
from kaption.domain.redaction import Match, TextRedactor, mask, merge

#: What stands for an open end that was never completed: nobody knows what it would have become.
UNFINISHED = "REDACTED"
_FEWEST_DIGITS = 4
#: A sentence that ends in "at ten" (10.) need not wait for the next one; three digits may begin a number.
_FEWEST_HELD = 3

#: Shorter than this, what looks like a card may be the beginning of a longer one.
_CARD_DIGITS = 15


@dataclass(frozen=True, slots=True)
class Masked:
    """One segment's text after redaction, its words (seconds kept), and where masks stand in the text."""

    text: str
    words: tuple[DecodedWord, ...]
    matches: tuple[Match, ...]


def visible(
    text: str, entities: tuple[str, ...], redactor: TextRedactor, settled: int | None = None, *, carried: bool = False
) -> str:
    """What may be shown of a text that still grows: matches masked, its open end withheld.

    ``settled`` is how much of it is agreed on (all when None): behind that, a word that breaks a number may never have
    been said, so a number of five digits is withheld there whatever follows it. ``carried``: see ``mask_together``.
    """
    if not entities:
        return text
    matches = _matches(text, entities, redactor, carried=carried)
    end = min(
        redactor.open_suffix(text, entities), sensitive_from(text, entities, len(text) if settled is None else settled)
    )
    for match in matches:
        if match.start < end < match.end:
            end = match.start
    inside = tuple(match for match in matches if match.end <= end)
    return mask(text[:end], inside).text


def unfinished(text: str, entities: tuple[str, ...], redactor: TextRedactor) -> Match | None:
    """The end of ``text`` that holds three digits or an @ and could still grow into a match, and is none yet."""
    if not entities:
        return None
    start = redactor.open_suffix(text, entities)
    for match in redactor.find(text, entities):
        start = max(start, match.end)
    rest = text[start:]
    if "@" not in rest and sum(map(str.isdigit, rest)) < _FEWEST_HELD:
        return None
    return Match(UNFINISHED, start + len(rest) - len(rest.lstrip()), len(text))


def goes_on(text: str, entities: tuple[str, ...], redactor: TextRedactor) -> bool:
    """Whether what is said behind a pause could make more of the end of ``text``, of a complete match too: the first ten
    digits of a card may be a phone number. A whole card is taken to be at its end.
    """
    if unfinished(text, entities, redactor):
        return True
    start = redactor.open_suffix(f"{text} ", entities) if entities else len(text)
    digits = sum(map(str.isdigit, text[start:]))
    whole = digits >= _CARD_DIGITS and any(
        match.entity == "CREDIT_CARD" and match.end > start for match in redactor.find(text, entities)
    )
    return digits >= _FEWEST_HELD and not whole


def text_of(decoded: Decoded) -> str:
    """A decode's text as its words spell it, so that characters and words agree."""
    return "".join(word.text for word in decoded.words).strip() or decoded.text


def mask_together(
    decodes: list[Decoded], entities: tuple[str, ...], redactor: TextRedactor, *, carried: bool = False
) -> list[Masked]:
    """Redact consecutive segments as one text; of a match across two, the label stands in the first.

    An unfinished end with four digits or an @ is masked too, since nothing will complete it in time. ``carried`` says that
    the text before ended so: digits at the beginning of this one belong to that number.
    """
    texts = [text_of(decoded) for decoded in decodes]
    whole = " ".join(texts)
    matches = list(_matches(whole, entities, redactor, carried=carried)) if entities else []
    rest = unfinished(whole, entities, redactor)
    if rest and ("@" in whole[rest.start :] or sum(map(str.isdigit, whole[rest.start :])) >= _FEWEST_DIGITS):
        matches = list(merge([*matches, rest]))
    out, at = [], 0
    for text, decoded in zip(texts, decodes, strict=True):
        local = [
            (Match(m.entity, max(m.start - at, 0), min(m.end - at, len(text))), m.start >= at)
            for m in matches
            if m.start < at + len(text) and m.end > at
        ]
        out.append(_mask_one(text, decoded.words, local))
        at += len(text) + 1
    return out


def carries(masked: Masked) -> bool:
    """Whether a text ends in a number that was masked before it was known what it would become."""
    last = masked.matches[-1] if masked.matches else None
    return last is not None and last.entity == UNFINISHED and not any(map(str.isalnum, masked.text[last.end :]))


def _matches(text: str, entities: tuple[str, ...], redactor: TextRedactor, *, carried: bool) -> tuple[Match, ...]:
    """Complete matches, and the digits at the beginning that belong to a number of the text before."""
    found = redactor.find(text, entities)
    first = next(iter(runs(normalise(text))), None) if carried else None
    if first is None or any(map(str.isalnum, text[: first.start])):
        return found
    return merge([Match(UNFINISHED, first.start, first.end), *found])


def _mask_one(text: str, words: tuple[DecodedWord, ...], local: list[tuple[Match, bool]]) -> Masked:
    done = mask(text, tuple(match for match, _ in local))
    new_text, spans = done.text, list(done.matches)
    for index, (_, first) in reversed(list(enumerate(local))):
        if not first:  # the label stands in the segment before
            span = spans.pop(index)
            cut = span.end - span.start
            new_text = new_text[: span.start] + new_text[span.end :]
            spans = [s if s.start < span.start else Match(s.entity, s.start - cut, s.end - cut) for s in spans]
    stripped = new_text.lstrip()
    shift = len(new_text) - len(stripped)
    matches = tuple(Match(s.entity, s.start - shift, s.end - shift) for s in spans)
    return Masked(stripped.rstrip(), _mask_words(words, local), matches)


def _mask_words(words: tuple[DecodedWord, ...], local: list[tuple[Match, bool]]) -> tuple[DecodedWord, ...]:
    """Words that touch a match become one word, the label; positions are those of the stripped text."""
    out: list[DecodedWord] = []
    lead = len(words[0].text) - len(words[0].text.lstrip()) if words else 0
    at = -lead
    last: Match | None = None
    for word in words:
        start, end = at, at + len(word.text)
        at = end
        begin = start + len(word.text) - len(word.text.lstrip())
        hit = next(((m, first) for m, first in local if m.start < end and m.end > begin), None)
        if hit is None:
            out.append(word)
        elif hit[0] is last and out:
            out[-1] = DecodedWord(out[-1].text, out[-1].start, word.end, min(out[-1].probability, word.probability))
        elif hit[1]:
            out.append(DecodedWord(f" [{hit[0].entity}]", word.start, word.end, word.probability))
        last = hit[0] if hit and hit[1] else last
    return tuple(out)
