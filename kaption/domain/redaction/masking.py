"""Masks the texts and words of finals that are published together, and withholds the open end of a growing text.

It never masks a text alone: it puts the speech before it, published or waiting, in front, masks both together, and removes
the front again. So a number with pauses in it is one number.
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

#: The label of an open end that was never completed: its entity is unknown.
UNFINISHED = "REDACTED"
#: Fewest digits at the end that hold a final back. "At ten" has two and need not wait; three may begin a number.
_FEWEST_HELD = 3
#: Digits after which a card counts as complete; an IBAN may be longer.
_WHOLE = 15
_WHOLE_IBAN = 20
#: Most characters of published text that are kept for the next. Counting for hours is one run of digits; numbers and
#: addresses, however they are said, are shorter, and by then the text before them is only a list.
_LONGEST_END: Const = 1500
#: What a text might continue while the speech before it is unknown: a number, an address before and after its "@".
UNKNOWN: Const = ("5555 5555 5555 5555", "x at", "x@x")

#: A word with a sign of a mail or network address in it.
_SIGNED = re.compile(r"\S*(?:@|\w[._:]\w|::)\S*")


@dataclass(frozen=True, slots=True)
class Masked:
    """One segment's text after redaction, its words (seconds kept), and where masks stand in the text."""

    text: str
    words: tuple[DecodedWord, ...]
    matches: tuple[Match, ...]


@dataclass(frozen=True, slots=True)
class Before:
    """The speech before a text: the end of the published text (from ``published_end``), and the text that waits for its final."""

    published: str = ""
    waiting: str = ""


def visible(
    text: str,
    entities: tuple[str, ...],
    redactor: TextRedactor,
    settled: int | None = None,
    before: Before = Before(),  # frozen
) -> str:
    """Return the part of a growing text that may be shown: matches masked, its open end withheld.

    ``settled`` is the length on which hypotheses agree (None: all). After that, a word that breaks a number may never have
    been said, so numbers from five digits on are withheld there whatever follows.
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
            begin = match.end  # its label is in the segment before
    inside = [Match(m.entity, max(m.start, begin) - begin, m.end - begin) for m in matches if begin < m.end <= end]
    return mask(whole[begin:end], tuple(inside)).text.lstrip()


def goes_on(text: str, entities: tuple[str, ...]) -> bool:
    """Whether speech after a pause could extend the end of ``text``, also a complete match: the first ten digits of a card
    may be a phone number. A whole card counts as complete.
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
    """Return the end of ``text`` that must not be shown, since it may continue after a pause of any length."""
    if "EMAIL_ADDRESS" in entities:
        at = open_sign(normalise(text))
        if at is not None:
            return Match(UNFINISHED, at, len(text.rstrip()))
    found = last_run(text) if set(entities) - {"EMAIL_ADDRESS"} else None
    if found and begins_number(*found):
        return Match(UNFINISHED, found[1].start, found[1].end)
    return None


def without_numbers(text: str, entities: tuple[str, ...]) -> str:
    """Remove from ``text`` everything to redact, also what neighbouring text could make into it.

    The result depends on the text alone, not on what was published and when.
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
    """Return a decode's text as its words spell it, so that characters and words agree."""
    return "".join(word.text for word in decoded.words).strip() or decoded.text


@dataclass(frozen=True, slots=True)
class _Whole:
    """Texts joined, with ``front`` characters from before, and the matches to mask."""

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
    """Redact consecutive segments as one text. If a match spans two, the first gets the label.

    ``published`` is the end of the text before, from ``published_end``: a number may continue from there. Unless the run has
    ``ended``, an end with too much of a number is masked too, since nothing will complete it in time.
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
    """Return the end of the published text after ``decodes``, with which the next one is masked. A mask that could continue
    is replaced by a stand-in for what was said.
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
        if not first:  # the label is in the segment before
            span = spans.pop(index)
            cut = span.end - span.start
            new_text = new_text[: span.start] + new_text[span.end :]
            spans = [s if s.start < span.start else Match(s.entity, s.start - cut, s.end - cut) for s in spans]
    stripped = new_text.lstrip()
    shift = len(new_text) - len(stripped)
    matches = tuple(Match(s.entity, s.start - shift, s.end - shift) for s in spans)
    return Masked(stripped.rstrip(), _mask_words(words, local), matches)


def _mask_words(words: tuple[DecodedWord, ...], local: list[tuple[Match, bool]]) -> tuple[DecodedWord, ...]:
    """Replace the words that touch a match by one word, the label; positions are those of the stripped text."""
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
