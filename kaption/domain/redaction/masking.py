"""Masks over the texts and words of finals that are published together, and what of a growing text may be shown.

A text is never looked at alone: what was said before it, published or waiting, is put in front, all is masked together, and
the front is cut off again. So a number that pauses part is one number.
"""

import re
from dataclasses import dataclass
from typing import Final as Const

from kaption.domain.decoding.port import Decoded, DecodedWord
from kaption.domain.redaction.addresses import addresses, begins_address, open_address, open_sign
from kaption.domain.redaction.matches import Match, TextRedactor, mask, merge
from kaption.domain.redaction.numbers import CONTEXT, begins_number, last_run, stand_in
from kaption.domain.redaction.open_suffix import sensitive_from
from kaption.domain.redaction.spoken import normalise, scan

#: What stands for an open end that was never completed: nobody knows what it would have become.
UNFINISHED = "REDACTED"
#: A sentence that ends in "at ten" (10.) need not wait for the next one; three digits may begin a number.
_FEWEST_HELD = 3
#: With so many digits a card is taken to be at its end; an IBAN may be longer.
_WHOLE = 15
_WHOLE_IBAN = 20
#: So much of published text is kept for what comes next: whoever counts for hours says one run of digits. A number or an address, however
#: it is said, is shorter, and what stands before it no more than a list by then.
_LONGEST_END: Const = 1500
#: What a text might continue, as long as what was said before it is not known: a number, an address before and behind its "@".
UNKNOWN: Const = ("5555 5555 5555 5555", "x at", "x@x")

#: What has a sign of an address within, of a mailbox or a machine.
_SIGNED = re.compile(r"\S*(?:@|\w[._:]\w|::)\S*")


@dataclass(frozen=True, slots=True)
class Masked:
    """One segment's text after redaction, its words (seconds kept), and where masks stand in the text."""

    text: str
    words: tuple[DecodedWord, ...]
    matches: tuple[Match, ...]


@dataclass(frozen=True, slots=True)
class Before:
    """What was said before a text: the end of what is published (``mask_together`` gives it), and what waits for its final."""

    published: str = ""
    waiting: str = ""


def visible(
    text: str,
    entities: tuple[str, ...],
    redactor: TextRedactor,
    settled: int | None = None,
    before: Before = Before(),  # frozen
) -> str:
    """What may be shown of a text that still grows: matches masked, its open end withheld.

    ``settled`` is how much of it is agreed on (all when None): behind that, a word that breaks a number may never have
    been said, so a number of five digits is withheld there whatever follows it.
    """
    if not entities:
        return text
    published = _front(before.published)
    front = published + _front(before.waiting)
    whole, at = front + text, len(front)
    matches = redactor.find(whole, entities)
    settled = at + (len(text) if settled is None else settled)
    end = min(redactor.open_suffix(whole, entities), sensitive_from(whole, entities, settled))
    for match in matches:
        if match.start < end < match.end:
            end = match.start
    begin = at
    for match in matches:
        if len(published) <= match.start < at < match.end:
            begin = match.end  # its label stands in the segment before
    inside = [Match(m.entity, max(m.start, begin) - begin, m.end - begin) for m in matches if begin < m.end <= end]
    return mask(whole[begin:end], tuple(inside)).text.lstrip()


def goes_on(text: str, entities: tuple[str, ...]) -> bool:
    """Whether what is said behind a pause could make more of the end of ``text``, of a complete match too: the first ten
    digits of a card may be a phone number. A whole card is taken to be at its end.
    """
    if not entities:
        return False
    if "EMAIL_ADDRESS" in entities and begins_address(normalise(text)):
        return True
    found = last_run(text) if set(entities) - {"EMAIL_ADDRESS"} else None
    if found is None:
        return False
    run = found[1]
    return run.sure or _FEWEST_HELD <= run.count < (_WHOLE_IBAN if run.head else _WHOLE)


def unfinished(text: str, entities: tuple[str, ...]) -> Match | None:
    """The end of ``text`` that must not be shown though nothing completes it in time: it may go on however long the pause."""
    if "EMAIL_ADDRESS" in entities:
        at = open_sign(normalise(text))
        if at is not None:
            return Match(UNFINISHED, at, len(text.rstrip()))
    found = last_run(text) if set(entities) - {"EMAIL_ADDRESS"} else None
    if found and begins_number(*found):
        return Match(UNFINISHED, found[1].start, found[1].end)
    return None


def without_numbers(text: str, entities: tuple[str, ...]) -> str:
    """``text`` without anything that is, or with what stands before or behind it may be, something to redact.

    It follows from the text alone, so that it is the same whatever was published by when.
    """
    if not entities:
        return text
    view = normalise(text)
    spans = [Match("", run.start, run.end) for run in scan(view).runs]
    spans += [Match("", word.start(), word.end()) for word in _SIGNED.finditer(view)]
    for front in ("", *(f"{begun} " for begun in UNKNOWN)):
        at = len(front)
        spans += [Match("", max(start - at, 0), end - at) for start, end in addresses(front + view) if end > at]
    if begins_address(view):
        spans.append(Match("", open_address(view), len(view)))
    out, at = [], 0
    for span in merge(spans):
        out.append(text[at : span.start])
        at = span.end
    return " ".join("".join([*out, text[at:]]).split())


def text_of(decoded: Decoded) -> str:
    """A decode's text as its words spell it, so that characters and words agree."""
    return "".join(word.text for word in decoded.words).strip() or decoded.text


@dataclass(frozen=True, slots=True)
class _Whole:
    """Texts as one, ``front`` characters of it from before, and what is masked of it."""

    text: str
    front: int
    matches: tuple[Match, ...]


def mask_together(
    decodes: list[Decoded],
    entities: tuple[str, ...],
    redactor: TextRedactor,
    published: str = "",
    *,
    ended: bool = False,
) -> list[Masked]:
    """Redact consecutive segments as one text; of a match across two, the label stands in the first.

    ``published`` is the end of the text before, as ``published_end`` gives it: a number may go on from there. An end that has too
    much of a number is masked too, since nothing will complete it in time, unless the run has ``ended``.
    """
    whole = _whole(decodes, entities, redactor, published, ended=ended)
    ahead = [
        Match(match.entity, _first(whole.text, max(match.start, whole.front)), match.end)
        for match in whole.matches
        if match.end > whole.front
    ]
    out, at = [], whole.front
    for decoded in decodes:
        text = text_of(decoded)
        local = [
            (Match(m.entity, max(m.start - at, 0), min(m.end - at, len(text))), m.start >= at)
            for m in ahead
            if m.start < at + len(text) and m.end > at
        ]
        out.append(_mask_one(text, decoded.words, local))
        at += len(text) + 1
    return out


def published_end(
    decodes: list[Decoded],
    entities: tuple[str, ...],
    redactor: TextRedactor,
    published: str = "",
    *,
    ended: bool = False,
) -> str:
    """The end of the text behind ``decodes``, for the next one to be masked with: as it is published, and where that is a mask
    that could go on, with something alike in place of what was said.
    """
    if not entities:
        return ""
    whole = _whole(decodes, entities, redactor, published, ended=ended)
    start = redactor.open_suffix(f"{whole.text} ", entities)
    out, at = [], 0
    for match in whole.matches:
        label = f"[{match.entity}]" if match.end <= start else _alike(whole.text[match.start : match.end], entities)
        out += [whole.text[at : match.start], label]
        at = match.end
    text = "".join([*out, whole.text[at:]])
    cut = max(0, redactor.open_suffix(f"{text} ", entities) - CONTEXT)
    if len(text) - cut > _LONGEST_END:
        cut = max(len(text) - _LONGEST_END, text.find(" ", len(text) - _LONGEST_END))
        return text[cut:].strip()
    return text[text.find(" ", cut) + 1 if cut else 0 :].rstrip()


def _whole(
    decodes: list[Decoded], entities: tuple[str, ...], redactor: TextRedactor, published: str, *, ended: bool
) -> _Whole:
    front = _front(published)
    text = front + " ".join(map(text_of, decodes))
    matches = redactor.find(text, entities) if entities else ()
    rest = unfinished(text, entities) if entities and not ended else None
    if rest and not any(match.end > rest.start for match in matches):
        matches = merge([*matches, rest])
    return _Whole(text, len(front), matches)


def _front(text: str) -> str:
    return f"{text} " if text else ""


def _first(text: str, at: int) -> int:
    while text[at : at + 1] == " ":
        at += 1
    return at


def _alike(text: str, entities: tuple[str, ...]) -> str:
    if last_run(text) and open_sign(normalise(text)) is None:
        return stand_in(text, entities)
    return "x@" if text.lower().endswith(("@", " at")) else "x@x"


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
    said = "".join(word.text for word in words)
    at = len(said.lstrip()) - len(said)
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
