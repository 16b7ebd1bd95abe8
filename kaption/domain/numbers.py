"""Numbers as speech recognition writes them: where a text's runs of digits lie, and which hold a card or an IBAN.

Pattern recognisers expect "4111 1111 1111 1111"; Whisper also writes "4111, 1111, 1111, 1111" and "4 1 1 1 ...".
All functions take text that ``normalise`` has gone over, and positions are those of that text.
"""

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

#: What may stand between two digits of one number, after ``normalise``.
SEPARATORS = r"[ \-.,()+/\[\]~#:;_*']"
#: Words between a phone number and its extension; phonenumbers takes them as part of the number.
_LABELS = ("extension", "extn", "ext", "int", "x")
_LABEL = "|".join(_LABELS)
_BEGUN = "|".join(sorted({word[:n] for word in _LABELS for n in range(1, len(word) + 1)}, key=len, reverse=True))
_LEAD = rf"[+(\[]{SEPARATORS}{{0,8}}"
# A run reaches as far as one number may, so a match of any recogniser lies within one run, and a run that touches the
# text's end takes separators and the beginning of a label with it: where it begins does not depend on what follows.
_RUN = re.compile(
    rf"(?:{_LEAD})?\d(?:{SEPARATORS}*(?:(?:{_LABEL}){SEPARATORS}*)?\d)*"
    rf"(?:{SEPARATORS}*(?:(?:{_BEGUN}){SEPARATORS}*)?\Z)?|{_LEAD}\Z",
    re.IGNORECASE,
)
_GROUP = re.compile(r"\d+")
_COLLAPSE = re.compile(r"(?<=[A-Z0-9])[ ,.;:/_\-]{2,}(?=[A-Z0-9])")
_IBAN_START = re.compile(r"(?<![A-Z0-9])[A-Z]{2}[ \-.,/]{0,3}\d[ \-.,/]{0,3}\d")
_IBAN_NEXT = re.compile(r"[ \-.,/]{0,3}([A-Z0-9])")
IBAN_LENGTHS = range(15, 35)
CARD_LENGTHS = range(13, 20)
_CARD_PREFIX = re.compile(r"3|4|5[0-5]|6|222[1-9]|22[3-9]|2[3-6]|27[01]|2720")


@dataclass(frozen=True, slots=True)
class Span:
    """Characters ``[start, end)`` of a text."""

    start: int
    end: int


@lru_cache(maxsize=4096)
def _plain(char: str) -> str:
    digit = unicodedata.decimal(char, None)
    if digit is not None:
        return str(digit)
    category = unicodedata.category(char)
    if char.isspace() or category == "Zs":
        return " "
    # Invisible characters within a number, and the hyphens that phonenumbers takes as such (U+30FC and U+2212 too).
    if category in {"Pd", "Cf"} or char in "\u2212\u30fc":
        return "-"
    folded = unicodedata.normalize("NFKC", char)
    return folded if len(folded) == 1 else char


def normalise(text: str) -> str:
    """The text, character by character, with other scripts' digits, spaces, hyphens and wide forms as ASCII has them."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_plain, text))


def runs(text: str) -> tuple[Span, ...]:
    """The maximal stretches that may be one number each, in order; one that touches the end may still grow."""
    return tuple(Span(*found.span()) for found in _RUN.finditer(text))


def count_digits(text: str) -> int:
    """How many digits a text has."""
    return sum(char.isdigit() for char in text)


def groups(text: str) -> tuple[str, ...]:
    """The stretches of digits that separators part."""
    return tuple(_GROUP.findall(text))


def spoken_as_one(parts: tuple[str, ...]) -> bool:
    """Whether groups of digits look like one number rather than a list of small ones: "20, 25, 30, 35, 40" is a list."""
    return all(len(part) == 1 for part in parts) or any(len(part) >= 3 for part in parts)


def collapse(text: str) -> tuple[str, tuple[int, ...]]:
    """``text`` with ", " and the like between numbers as one space, and each character's position in ``text``.

    The positions have one more entry than the new text, for its end.
    """
    out: list[str] = []
    where: list[int] = []
    at = 0
    for found in _COLLAPSE.finditer(text):
        out += [text[at : found.start()], " "]
        where += [*range(at, found.start()), found.start()]
        at = found.end()
    out.append(text[at:])
    where += range(at, len(text) + 1)
    return "".join(out), tuple(where)


def luhn(digits: str) -> bool:
    """Whether a card's check digit (ISO/IEC 7812) is right."""
    total = 0
    for index, char in enumerate(reversed(digits)):
        value = int(char) * (2 if index % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def _cards_in(text: str, run: Span) -> list[Span]:
    parts = [Span(*found.span()) for found in _GROUP.finditer(text, run.start, run.end)]
    out: list[Span] = []
    first = 0
    while first < len(parts):
        digits, best = "", -1
        for last in range(first, len(parts)):
            digits += text[parts[last].start : parts[last].end]
            if len(digits) >= CARD_LENGTHS.stop:
                break
            whole = first == 0 and last == len(parts) - 1
            grouped = whole or spoken_as_one(tuple(text[part.start : part.end] for part in parts[first : last + 1]))
            if len(digits) in CARD_LENGTHS and grouped and _CARD_PREFIX.match(digits) and luhn(digits):
                best = last
        if best >= 0:
            out.append(Span(parts[first].start, parts[best].end))
            first = best
        first += 1
    return out


def cards(text: str, within: tuple[Span, ...]) -> tuple[Span, ...]:
    """Card numbers in any grouping within ``runs``: a known prefix, 13-19 digits in whole groups, the check digit right.

    Within a longer run the groups must look like one number, since some stretch of a list of small ones passes Luhn.
    """
    return tuple(card for run in within for card in _cards_in(text, run) if not _in_word(text, card))


def _in_word(text: str, span: Span) -> bool:
    before, after = text[span.start - 1 : span.start], text[span.end : span.end + 1]
    return before.isalpha() or after.isalpha()


def iban_valid(compact: str) -> bool:
    """Whether letters and digits without separators have an IBAN's check digits (ISO 13616, modulo 97)."""
    return int("".join(str(int(char, 36)) for char in compact[4:] + compact[:4])) % 97 == 1


def ibans(text: str) -> tuple[Span, ...]:
    """IBANs in any grouping: a country, two digits, and up to 34 letters and digits in all with the right check digits."""
    out: list[Span] = []
    for start in _IBAN_START.finditer(text):
        if out and start.start() < out[-1].end:
            continue
        compact = "".join(filter(str.isalnum, start.group()))
        at = start.end()
        while len(compact) < IBAN_LENGTHS.stop - 1 and (found := _IBAN_NEXT.match(text, at)):
            compact, at = compact + found.group(1), found.end()
            whole = not text[at : at + 1].isalnum()
            if len(compact) in IBAN_LENGTHS and whole and iban_valid(compact):
                out.append(Span(start.start(), at))
                break
    return tuple(out)
