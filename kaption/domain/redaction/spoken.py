"""Scans numbers as people say them and speech recognition writes them: digits, number words, pairs, with fillers between.

A scanner reads the tokens once, from left to right, and collects *runs*: what may be one number. Later text never changes
what belongs to a run, so an open run begins at the same place however the text continues. ``numbers`` decides which runs a
policy names. Number words are English. All functions take text from ``normalise``, and positions are those of that text.
"""

import re
import unicodedata
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final as Const

#: Most words in a row between two parts of one number.
MOST_FILLERS: Const = 4
#: Digits of the largest amount that is taken as one: people say no more in hundreds and thousands.
_LONGEST_AMOUNT: Const = 13
#: Most letters and digits of an IBAN.
_LONGEST_IBAN: Const = 34
#: How many characters before the first digit an opening sign, or the first letter of an IBAN, may be.
_LEAD: Const = 8
_HEAD_REACH: Const = 8
#: Texts whose scan is kept: masking and the open suffix of one text use the same scan.
_CACHED: Const = 128
_LONGEST_CACHED: Const = 2000

#: Scripts without spaces between words.
SCRIPTS: Const = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
# Their blocks hold signs, too, which part numbers as any signs do: "4111・1111".
_TOKEN = re.compile(rf"\d+|[^\W\d_{SCRIPTS}]+|(?:(?=\w)[{SCRIPTS}])+")
_HEAD_BEGUN = re.compile(r"(?<![A-Za-z0-9])[A-Za-z][\W_]{0,3}\Z")
_HEAD = re.compile(r"(?<![A-Za-z0-9])([A-Za-z])([\W_]{0,3})([A-Za-z])[\W_]{0,3}\Z")
#: Ideographs that are digits; Unicode calls them letters.
_IDEOGRAPHS = frozenset("〇零一二三四五六七八九十百千两兩壱壹弐貳贰叁參肆伍陆陸柒捌玖")
_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_VALUES = {word: value for value, word in enumerate(_SMALL.split())}
_VALUES |= {word: 10 * value for value, word in enumerate(_TENS.split(), 2)}
_VALUES |= {"nought": 0, "naught": 0, "aught": 0, "nil": 0, "niner": 9, "fourty": 40}
#: These are a zero only within a number.
_ZEROS_WITHIN = frozenset({"oh", "o"})
_SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9}
_TIMES = {"double": 2, "triple": 3, "treble": 3, "quadruple": 4}
#: Words between a phone number and its extension.
EXTENSIONS = frozenset({"extension", "extn", "ext", "int", "x"})
_FILLERS_WORDS = (
    "um umm uh uhm uhh er erm ah hm hmm mm mhm so well then and okay ok now next yeah yes right again sorry wait "
    "dash hyphen minus space slash stroke dot point comma period plus und dann äh ähm et puis euh y luego eh"
)
_FILLERS = EXTENSIONS | frozenset(_FILLERS_WORDS.split())
_BEGINNINGS = frozenset(
    word[:n] for word in (*_VALUES, *_ZEROS_WITHIN, *_SCALES, *_TIMES, *_FILLERS) for n in range(1, len(word) + 1)
)
#: The beginnings of words that are or begin a number.
STARTS = frozenset(word[:n] for word in (*_VALUES, *_SCALES, *_TIMES) for n in range(1, len(word) + 1))
#: Countries that have IBANs (ISO 13616); those that are also English words count in capitals only.
_COUNTRIES_WORDS = (
    "AD AE AL AT AZ BA BE BG BH BI BR BY CH CR CY CZ DE DJ DK DO EE EG ES FI FK FO FR GB GE GI GL GR GT HN HR HU IE "
    "IL IQ IS IT JO KW KZ LB LC LI LT LU LV LY MC MD ME MK MN MR MT MU NI NL NO OM PK PL PS PT QA RO RS RU SA SC SD "
    "SE SI SK SM SO ST SV TL TN TR UA VA VG XK YE"
)
_COUNTRIES = frozenset(_COUNTRIES_WORDS.split())
_ENGLISH_WORDS = "AD AT BE DO IS IT ME NO OM SO ST"
_ENGLISH = frozenset(_ENGLISH_WORDS.split())
#: Latin, Greek and Cyrillic letters are below it: a digit right after one is part of a name.
_NO_NAMES: Const = "\u0530"


@lru_cache(maxsize=4096)
def _plain(char: str) -> str:
    digit = unicodedata.digit(char, None)
    if digit is not None:
        return str(digit)
    category = unicodedata.category(char)
    if category in {"No", "Nl"} or char in _IDEOGRAPHS:
        value = unicodedata.numeric(char, 0.5)
        if value.is_integer():
            return str(int(value))[-1]  # a ten is one digit: positions stay
    if char.isspace() or category == "Zs":
        return " "
    # Invisible characters within a number, and hyphens that Unicode does not classify as such.
    if category in {"Pd", "Cf"} or char in "\u2212\u30fc":
        return "-"
    folded = unicodedata.normalize("NFKC", char)
    return folded if len(folded) == 1 else char


def normalise(text: str) -> str:
    """Convert other scripts' digits, spaces, hyphens and wide forms to ASCII, character by character."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_plain, text))


def is_number_word(word: str) -> bool:
    """Whether a lower-case word is a number or a multiplier: "seven", "oh", "double"."""
    return word in _VALUES or word in _ZEROS_WITHIN or word in _SCALES or word in _TIMES


@dataclass(slots=True)
class Group:
    """Digits without separators, or one number in words. ``scaled``: said with hundred, thousand or more.

    ``letters``: a part of an IBAN without digits. ``twofold``: it may have one digit more, as "ninety four" is 94 or 90, 4.
    ``name``: letters are right before or after it, as in "MP3" or an identifier.
    """

    start: int
    end: int
    digits: str
    spoken: bool = False
    scaled: bool = False
    letters: bool = False
    twofold: bool = False
    name: bool = False
    total: int = 0
    current: int = 0

    def count(self, value: int) -> bool:
        """Add a word to the same number; False if the word begins another."""
        room = (
            100
            if self.scaled and self.current % 100 == 0
            else 10
            if self.current % 100 >= 20 and self.current % 10 == 0
            else 0
        )
        if not 0 < value < room:
            return False
        self.twofold |= not self.scaled
        self.current += value
        self.digits = str(self.total + self.current)
        return True

    def scale(self, by: int) -> None:
        """Multiply the part that was said last."""
        self.scaled = True
        if by == _SCALES["hundred"]:
            self.current = max(self.current, 1) * by
        else:
            self.total, self.current = self.total + max(self.current, 1) * by, 0
        self.digits = str(self.total + self.current)


@dataclass(slots=True)
class Run:
    """Characters ``[start, end)`` that may be one number, from the first digit or sign to the last digit.

    ``head``: it begins with the letters of an IBAN; ``sure``: nothing else is written like this. ``open``: it may continue
    after the text's end.
    """

    start: int
    groups: list[Group] = field(default_factory=list)
    head: str = ""
    sure: bool = False
    extension: bool = False
    open: bool = False

    @property
    def end(self) -> int:
        """The end of its last digit."""
        return self.groups[-1].end

    @property
    def digits(self) -> str:
        """Its digits, without separators."""
        return "".join(group.digits for group in self.groups if not group.letters)

    @property
    def count(self) -> int:
        """The number of digits that it has, or may have."""
        return sum(len(group.digits) + group.twofold for group in self.groups if not group.letters)


@dataclass(frozen=True, slots=True)
class Scan:
    """A text's runs in order, and the start of the end that may be or become one."""

    runs: tuple[Run, ...]
    open: int


class _Scanner:
    def __init__(self, view: str) -> None:
        self.view = view
        self.runs: list[Run] = []
        self.run: Run | None = None
        self.fillers = 0
        self.times = 1
        self.times_at: int | None = None
        self.before: tuple[int, int] | None = None  # the last token, if it is a word
        self.at = 0

    def scan(self) -> Scan:
        for found in _TOKEN.finditer(self.view):
            self._token(found.group(), found.start(), found.end())
            self.at = found.end()
        return self._finish()

    def _token(self, text: str, start: int, end: int) -> None:
        if text[0].isdigit():
            self._number(Group(start, end, text * self.times))
        else:
            self._word(text, text.lower(), start, end)
        self.before = None if text[0].isdigit() else (start, end)

    def _word(self, text: str, lower: str, start: int, end: int) -> None:
        run = self.run
        value = _VALUES.get(lower, 0 if run and lower in _ZEROS_WITHIN else None)
        if value is not None:
            self._spoken(value, start, end)
        elif lower in _SCALES:
            self._scale(_SCALES[lower], start, end)
        elif lower in _TIMES:
            self.times, self.times_at = _TIMES[lower], start
        elif run and lower in _FILLERS and self.fillers < MOST_FILLERS:
            self.fillers += 1
        elif run and run.head and self._in_iban(run, text):
            run.groups.append(Group(start, end, text, letters=True))
            self.fillers = 0
        elif not (end == len(self.view) and self._may_belong(text, lower)):
            self._close(text, start, end)

    def _spoken(self, value: int, start: int, end: int) -> None:
        last = self.run.groups[-1] if self.run else None
        gap = self.view[last.end : start].strip(" -").lower() if last else ""
        if (
            last
            and last.spoken
            and self.times == 1
            and gap in {"", "and"}
            and (gap == "" or last.scaled)
            and last.count(value)
        ):
            last.end = end
            self.fillers = 0
            return
        self._number(Group(start, end, str(value) * self.times, spoken=True, current=value))

    def _scale(self, by: int, start: int, end: int) -> None:
        last = self.run.groups[-1] if self.run else None
        if last is None or self.times > 1 or last.letters or len(last.digits) + len(str(by)) > _LONGEST_AMOUNT:
            self._number(Group(start, end, str(by), spoken=True, scaled=True, total=by))
            return
        if not last.spoken:  # "3 hundred"
            last.current = int(last.digits)
        last.spoken = True
        last.scale(by)
        last.end = end
        self.fillers = 0

    def _number(self, group: Group) -> None:
        group.name = self._named(group.start)
        if self.run is None:
            at = group.start if self.times_at is None else self.times_at
            self.run = self._begin(at)
        self.run.extension |= self.fillers > 0 and self._last_word() in EXTENSIONS
        self.run.groups.append(group)
        self.fillers, self.times, self.times_at = 0, 1, None

    def _last_word(self) -> str:
        return self.view[slice(*self.before)].lower() if self.before else ""

    def _begin(self, at: int) -> Run:
        return self._head(at) or Run(_lead(self.view, self.at if self.times_at is None else 0, at))

    def _named(self, at: int) -> bool:
        """Whether letters right before ``at`` are no part of a number: "MP3", but not "DE89" or "4111o1111"."""
        if self.before is None or self.before[1] != at or self.times > 1 or self.view[at - 1] >= _NO_NAMES:
            return False
        if self.run is None:
            word = self._last_word()
            return word.upper() not in _COUNTRIES and word.lower() not in _ZEROS_WITHIN and self._head(at) is None
        start = self.before[0]
        return not (self.run.head or is_number_word(self._last_word()) or self.view[start - 1 : start].isalnum())

    def _head(self, at: int) -> Run | None:
        """Begin a run with an IBAN's country, "DE", "D E" or "de", right before ``at``; None if there is none."""
        found = _HEAD.search(self.view, max(0, at - _HEAD_REACH), at)
        if found is None or not _is_country(found[1] + found[3]):
            return None
        sure = (found[1] + found[3]).isupper() or (not found[2] and found.end(3) == at)
        return Run(found.start(), head=(found[1] + found[3]).upper(), sure=sure)

    def _in_iban(self, run: Run, text: str) -> bool:
        size = len(run.head) + sum(len(group.digits) for group in run.groups)
        bank = len(text) == 4 and (text.isupper() or (run.sure and size == 4))  # DE89, NWBK
        short = len(text) == 1 or (text.isupper() and len(text) < 4)
        return size + len(text) <= _LONGEST_IBAN and text.isascii() and (bank or (short and run.sure))

    def _may_belong(self, text: str, lower: str) -> bool:
        """Whether a last word that may be incomplete could still become part of a number that has begun."""
        if self.run:
            return lower in _BEGINNINGS or (bool(self.run.head) and len(text) <= 4)
        return self.times_at is not None and lower in STARTS

    def _close(self, text: str = "", start: int = 0, end: int = 0) -> None:
        if self.run:
            if text and start == self.run.end and text[0] < _NO_NAMES:
                # A unit or an ending is short; an identifier goes on.
                self.run.groups[-1].name |= len(text) > 4 or self.view[end : end + 1].isdigit()
            self.runs.append(self.run)
        self.run, self.fillers, self.times, self.times_at = None, 0, 1, None

    def _finish(self) -> Scan:
        size = len(self.view)
        if self.run:
            self.run.open = True
            self.runs.append(self.run)
            return Scan(tuple(self.runs), self.run.start)
        at = min(_lead(self.view, self.at, size), self._iban_letters())
        last = self.before
        if self.times_at is not None:
            head = self._head(self.times_at)
            at = min(at, head.start if head else _lead(self.view, 0, self.times_at))
        elif last and last[1] == size and self.view[slice(*last)].lower() in STARTS:
            head = self._head(last[0])
            at = min(at, head.start if head else _lead(self.view, 0, last[0]))
        return Scan(tuple(self.runs), at)

    def _iban_letters(self) -> int:
        """Return the start of letters at the end that may be an IBAN's country, or its first half."""
        size = len(self.view)
        head = self._head(size)
        begun = _HEAD_BEGUN.search(self.view, max(0, size - _HEAD_REACH))
        return head.start if head else begun.start() if begun else size


def _is_country(letters: str) -> bool:
    code = letters.upper()
    return code in _COUNTRIES and (letters.isupper() or code not in _ENGLISH)


def _lead(view: str, low: int, at: int) -> int:
    """Return the start of a number with its first digit at ``at``: a sign before it, if only separators are between."""
    for index in range(max(low, at - _LEAD), at):
        if view[index] in "+([" and not any(map(str.isalnum, view[index:at])):
            return index
    return at


@lru_cache(maxsize=_CACHED)
def _scan_short(view: str) -> Scan:
    return _Scanner(view).scan()


def scan(view: str) -> Scan:
    """Return the runs of a text, in linear time. Do not change the result: it is cached for short texts."""
    return _scan_short(view) if len(view) <= _LONGEST_CACHED else _Scanner(view).scan()
