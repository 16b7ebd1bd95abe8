"""Finds mail addresses: "john.doe@gmail.com", "john.doe at gmail. com", "j o h n at example dot com".

It splits the text into tokens: "@", and stretches of characters that an address may have. Around each "@" or "at" it reads
the domain to the right and the name to the left, in linear time. Positions are those of normalised text.
"""

import re
from dataclasses import dataclass
from typing import Final as Const

from kaption.domain.redaction.spoken import SCRIPTS, STARTS, is_number_word

# An address does not begin in a script without spaces, or all of a Japanese text would be held back.
_TOKEN = re.compile(rf"@|(?:[!#$%&'*+\-/=?^_`{{|}}~.]|(?![{SCRIPTS}])\w)+")
_SIGN = re.compile(r"@|\bat\b", re.IGNORECASE)
_STRIPPED = ".,!?'-/"
#: An apostrophe ends a domain: "gmail.com's".
_ENDED = re.compile(r"(?<=\w)'.*")
#: "john.smith", and not "U.S." or "2.5".
_DOTTED = re.compile(r"\w\w[._]\w*[^\W\d]\w")
_JOINERS_WORDS = "dot point period underscore dash hyphen minus plus punkt punto"
_JOINERS = frozenset(_JOINERS_WORDS.split())
_DOTS_WORDS = "dot point period punkt punto"
_DOTS = frozenset(_DOTS_WORDS.split())
_SIGNS = frozenset("._-+")
_PARTS = re.compile(r"[-./+]")
_BEGINNINGS = frozenset(word[:n] for word in _JOINERS for n in range(1, len(word) + 1))
#: Top-level domains that are not English words: "gmail. com" is a domain, "we looked at it. So" is not.
_ENDINGS_WORDS = (
    "com net org edu gov mil info biz io ai app dev co uk de fr eu ch nl pl jp cn ru br au nz ca ie se dk fi"
)
_ENDINGS = frozenset(_ENDINGS_WORDS.split())
_ENDING_BEGINNINGS = frozenset(word[:n] for word in _ENDINGS for n in range(1, len(word) + 1))
_LONG_ENDINGS_WORDS = "name shop online site tech cloud email museum travel local internal example test invalid"
_LONG_ENDINGS = _ENDINGS | frozenset(_LONG_ENDINGS_WORDS.split())
#: Words that are no name before "at": "reach me at example.com" holds no address.
_NO_NAME_WORDS = (
    "i me you him her us them it we they he she is am are was were be been being not up out on off in here there "
    "now then back home look looks looked looking more only just all again online available down over away at and "
    "or the a an of to for with this that these those what who when where arrive arrives arrived start starts "
    "started meet meets met visit found find"
)
_NO_NAME = frozenset(_NO_NAME_WORDS.split())
#: Most parts of a name that are read, and most characters between two parts.
_MOST_PARTS: Const = 60
_MOST_GAP: Const = 4
_MOST_LABELS: Const = 40


@dataclass(frozen=True, slots=True)
class _Token:
    start: int
    end: int
    text: str

    @property
    def bare(self) -> str:
        return self.text.strip(_STRIPPED).lower()

    @property
    def host(self) -> str:
        """The part of it that belongs to a domain."""
        return _ENDED.sub("", self.text).rstrip(_STRIPPED)

    @property
    def at(self) -> bool:
        return self.text == "@" or self.bare == "at"

    @property
    def joins(self) -> bool:
        return self.bare in _JOINERS or (self.text in _SIGNS)

    @property
    def spelled(self) -> bool:
        """Whether it is a letter, digits, or a number word, which people spell one by one."""
        bare = self.bare
        return (len(bare) == 1 and bare.isalnum()) or (bool(bare) and all(map(_is_numeric, _PARTS.split(bare))))


def addresses(view: str) -> list[tuple[int, int]]:
    """Return the spans of addresses, in the order of their signs; they may overlap."""
    if not _SIGN.search(view):
        return []
    return _found(view, _tokens(view))


def _found(view: str, tokens: list[_Token]) -> list[tuple[int, int]]:
    found = (_address(view, tokens, index) for index, token in enumerate(tokens) if token.at)
    return [span for span in found if span]


def open_address(view: str) -> int:
    """Return the start of the end of ``view`` that is or may become an address: at least the last word."""
    tokens = _tokens(view)
    if not tokens or len(view) - tokens[-1].end > _MOST_GAP:
        return len(view)
    at = _name_start(view, tokens, len(tokens) - 1, loose=True)
    low = max(0, len(tokens) - _MOST_LABELS)
    for index in range(low, len(tokens)):
        if tokens[index].at:
            _, more = _domain(view, tokens, index)
            if more and _named(view, tokens, index):
                at = min(at, _name_start(view, tokens, index - 1, loose=True))
    for start, end in reversed(_found(view, tokens)):
        if end > at:  # the open address begins within this one
            at = min(at, start)
    return at


def begins_address(view: str) -> bool:
    """Whether ``view`` ends in enough of an address that a final should wait for the rest."""
    tokens = _tokens(view[open_address(view) :])
    return _joined(tokens) or any(token.at for token in tokens[1:]) or any(token.text == "@" for token in tokens)


def open_sign(view: str) -> int | None:
    """Return the start of an address that has its sign but may lack part of its domain; None if there is none.

    A single word before "at" does not count: "dinner at home".
    """
    at = open_address(view)
    tokens = _tokens(view[at:])
    signed = any(token.text == "@" for token in tokens) or (_joined(tokens) and any(token.at for token in tokens))
    return at if signed else None


def _joined(tokens: list[_Token]) -> bool:
    return any(_DOTTED.search(token.text) for token in tokens) or any(token.bare in _JOINERS for token in tokens[1:])


def signs_beyond(view: str, settled: int) -> int:
    """Return the start of the first name before an "@" that reaches beyond ``settled``; ``len(view)`` if none does."""
    tokens = _tokens(view) if "@" in view else []
    starts = (
        _name_start(view, tokens, index - 1) if index else token.start
        for index, token in enumerate(tokens)
        if token.text == "@" and tokens[min(index + 1, len(tokens) - 1)].end > settled
    )
    return min(starts, default=len(view))


def _is_numeric(part: str) -> bool:
    return part.isdigit() or is_number_word(part) or not part


def _may_be_numeric(bare: str) -> bool:
    """Whether a word that may be incomplete could become numbers."""
    *parts, last = _PARTS.split(bare)
    return last in STARTS and all(map(_is_numeric, parts))


def _tokens(view: str) -> list[_Token]:
    return [_Token(found.start(), found.end(), found.group()) for found in _TOKEN.finditer(view)]


def _near(view: str, left: _Token, right: _Token) -> bool:
    gap = view[left.end : right.start]
    return len(gap) <= _MOST_GAP and not any(map(str.isalnum, gap))


def _named(view: str, tokens: list[_Token], index: int) -> bool:
    """Whether a name may stand before the sign: nearly anything before an "@", a part of a name before "at"."""
    if index == 0 or not _near(view, tokens[index - 1], tokens[index]):
        return False
    before = tokens[index - 1]
    if tokens[index].text == "@":
        return True
    return bool(before.bare) and before.bare not in _NO_NAME and not before.joins


def _address(view: str, tokens: list[_Token], index: int) -> tuple[int, int] | None:
    sign = tokens[index]
    left = tokens[index - 1] if index else None
    glued_left = left is not None and left.end == sign.start
    right = tokens[index + 1] if index + 1 < len(tokens) else None
    glued_right = right is not None and right.start == sign.end
    end, _ = _domain(view, tokens, index)
    named = _named(view, tokens, index)
    if sign.text == "@" and glued_left:
        # Whatever the domain is: people write this only in an address.
        if right is not None and right.text != "@" and (glued_right or _near(view, sign, right)):
            end = max(end, right.start + len(right.host), sign.end)
        return (_name_start(view, tokens, index - 1), end) if end else None
    if not end or not named:
        return None
    return _name_start(view, tokens, index - 1), end


def _name_start(view: str, tokens: list[_Token], index: int, *, loose: bool = False) -> int:
    """Return the start of the name whose last part is the token at ``index``.

    ``loose`` is for an end that may still become an address: it takes all that a strict reading from any later sign takes.
    """
    if index < 0:
        return 0
    at = index
    for _ in range(_MOST_PARTS):
        current = tokens[at]
        if at == 0 or not _near(view, tokens[at - 1], current) or tokens[at - 1].text == "@":
            break
        before = tokens[at - 1]
        spelled = current.spelled or (loose and at == len(tokens) - 1 and _may_be_numeric(current.bare))
        joins = current.joins or (loose and at == len(tokens) - 1 and current.bare in _BEGINNINGS)
        if not (before.joins or joins or spelled or _spelling(tokens, at - 1)):
            break
        if not before.joins and not before.spelled and before.bare in _NO_NAME:
            break
        at -= 1
    return tokens[at].start


def _spelling(tokens: list[_Token], index: int) -> bool:
    """Whether letters are spelled there: more than one, which "a friend" has too."""
    return index > 0 and all(len(token.bare) == 1 and token.bare.isalpha() for token in tokens[index - 1 : index + 1])


def _domain(view: str, tokens: list[_Token], index: int) -> tuple[int, bool]:
    """Return the end of the domain after the sign, 0 if there is none; and whether more text could begin or extend one."""
    return _Domain(view, tokens, index + 1).read()


class _Domain:
    """Reads labels and what joins them, from the token at ``first``."""

    def __init__(self, view: str, tokens: list[_Token], first: int) -> None:
        self.view = view
        self.tokens = tokens
        self.first = first
        self.end = 0
        self.dotted = self.spelled = False  # the last label ends in a dot, is a single letter or number

    def read(self) -> tuple[int, bool]:
        for at in range(self.first, min(self.first + _MOST_LABELS, len(self.tokens))):
            more = self._take(at, self.tokens[at])
            if more is not None:
                return self.end, more
        return self.end, len(self.tokens) < self.first + _MOST_LABELS

    def _take(self, at: int, token: _Token) -> bool | None:
        """Read one token. At the domain's end, return whether more text could extend it, otherwise None."""
        before = self.tokens[at - 1]
        if not _near(self.view, before, token) or token.text == "@":
            return False
        if at == self.first or before.joins or self.dotted:
            return self._label(token, before if at > self.first else None)
        last = at == len(self.tokens) - 1
        if token.joins or (last and (token.bare in _BEGINNINGS or _may_be_numeric(token.bare))):
            return None
        if token.text.startswith(".") and (token.bare or token.end == len(self.view)):
            self._ends_in(token)
            return None
        return None if self.spelled and token.spelled else False

    def _label(self, token: _Token, before: _Token | None) -> bool | None:
        """Read a label. Any may end a domain after a spoken dot; after a dot next to a space only a known ending may."""
        bare, grows = token.host.strip(_STRIPPED).lower(), token.end == len(self.view)
        if token.joins or not bare:
            return grows or bare in _BEGINNINGS
        known, begun = bare.split(".")[0] in _ENDINGS, grows and bare in _ENDING_BEGINNINGS
        lone = before is not None and before.text == "."
        if (self.dotted or lone) and not known and not begun:
            return lone and grows
        spoken = before is not None and before.bare in _DOTS and len(bare) > 1
        if spoken or ((self.dotted or lone) and known) or _ends(bare):
            self._ends_in(token)
        self.spelled, self.dotted = token.spelled, token.text.endswith(".")
        return None

    def _ends_in(self, token: _Token) -> None:
        self.end = token.start + len(token.host)
        self.dotted = token.text.endswith(".")


def _ends(bare: str) -> bool:
    """Whether labels with dots end like a domain: in two letters or a known ending."""
    labels = bare.split(".")
    last = labels[-1]
    return len(labels) > 1 and all(labels) and last.isalpha() and (len(last) == 2 or last in _LONG_ENDINGS)
