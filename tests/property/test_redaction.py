"""No part of what policy redacts is shown, wherever a text is cut (promise 6; point 9 of the spine)."""

import random
import re
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kaption.adapters.presidio import PresidioRedactor
from kaption.domain.decoding.port import Decoded, DecodedWord
from kaption.domain.redaction.masking import mask_together, visible
from kaption.domain.redaction.numbers import luhn
from kaption.domain.redaction.open_suffix import RECOGNISED, open_suffix
from kaption.domain.redaction.spoken import normalise

POLICY = ("CREDIT_CARD", "EMAIL_ADDRESS", "IBAN_CODE", "PHONE_NUMBER", "US_SSN")
EVERY = tuple(sorted(RECOGNISED))
REDACTOR = PresidioRedactor()
_FEW = 5

_BEFORE = (
    "so my card is",
    "you can reach me at",
    "I wrote it down:",
    "it's",
    "Well, in the end we took",
    "the line is (busy)",
)
_BETWEEN = ("and then", ", or", ". After that", "which is for Anna, and", "; the 3rd one is", "- no, wait -")
_AFTER = ("thank you very much.", "is that right?", "and 2 more.", "okay", "for the 12 of us.", "")


@dataclass(frozen=True)
class Sample:
    text: str
    secrets: tuple[tuple[int, int], ...]


def _card(random_: random.Random) -> str:
    prefix, length = random_.choice([("4", 16), ("51", 16), ("55", 16), ("6011", 16), ("37", 15), ("2221", 16)])
    body = prefix + "".join(random_.choices("0123456789", k=length - len(prefix) - 1))
    digits = body + next(d for d in "0123456789" if luhn(body + d))
    sizes = (
        [4, 6, 5]
        if length == 15
        else random_.choice([[4] * 4, [4] * 4, [4, 4, 8], [2] * 8, [1] * 16, [16], [4, 4, 2, 2, 4]])
    )
    return random_.choice([" ", "-", ", ", ". ", " - ", "\u00a0"]).join(_grouped(digits, sizes))


def _grouped(digits: str, sizes: list[int]) -> list[str]:
    ends = [sum(sizes[: index + 1]) for index in range(len(sizes))]
    return [digits[end - size : end] for size, end in zip(sizes, ends, strict=True)]


def _phone(random_: random.Random) -> str:
    area, last = random_.choice(["202", "212", "415", "312", "617"]), f"{random_.randrange(10000):04}"
    middle = f"{random_.randrange(201, 999)}"
    if middle.endswith("11"):
        middle = "555"
    form = random_.choice(
        ["{0}-{1}-{2}", "({0}) {1}-{2}", "{0}.{1}.{2}", "{0} {1} {2}", "+1 {0} {1} {2}", "+1-{0}-{1}-{2}", "1-{0}-{1}-{2}",
         "{0}{1}{2}", "{0}, {1}, {2}", "+44 20 7946 {2}", "020 7946 {2}", "+49 30 123{2}", "{0}-{1}-{2} ext. 42"]
    )  # fmt: skip
    return form.format(area, middle, last)


def _mail(random_: random.Random) -> str:
    name = random_.choice(["zqx", "Zqvar", "zq.weller", "zq_77", "zq-mo+tag", "zq1985"])
    return f"{name}@{random_.choice(['zqmail.com', 'zq-post.co.uk', 'zq.example.org', 'zq9.de'])}"


def _sample(seed: int) -> Sample:
    random_ = random.Random(seed)
    text, secrets = "", []
    for index in range(random_.randint(1, 3)):
        text += random_.choice(_BETWEEN if index else _BEFORE) + " "
        secret = random_.choice([_card, _phone, _mail])(random_)
        secrets.append((len(text), len(text) + len(secret)))
        text += secret
        text += random_.choice(["", ",", "."]) if index else random_.choice(["", ","])
        text += " "
    return Sample((text + random_.choice(_AFTER)).rstrip(), tuple(secrets))


def _digits(text: str) -> str:
    return re.sub(r"\D", "", text)


def _assert_clear(shown: str, sample: Sample) -> None:
    """``shown`` has no five digits that a secret begins with, nor any part of an address."""
    said = re.sub(r"\[[A-Z_]+\]", "|", shown)
    assert "zq" not in said.lower()
    groups = _digits_by_run(said)
    for start, end in sample.secrets:
        secret = sample.text[start:end]
        if "@" not in secret:
            assert not any(_digits(secret)[:_FEW] in run for run in groups), (shown, secret)


def _digits_by_run(text: str) -> list[str]:
    return [_digits(run) for run in re.split(r"[^\d\s.,()+\-\u00a0]", text)]


SAMPLES = [_sample(seed) for seed in range(200)]


@pytest.mark.parametrize("part", range(8))
def test_200_texts_cut_at_any_character(part: int) -> None:
    for sample in SAMPLES[part::8]:
        before = ""
        for cut in range(len(sample.text) + 1):
            shown = visible(sample.text[:cut], POLICY, REDACTOR).rstrip()
            _assert_clear(shown, sample)
            assert shown.startswith(before), "what is shown only grows"
            before = shown


def test_200_texts_word_by_word() -> None:
    for sample in SAMPLES:
        words = sample.text.split()
        for count in range(len(words) + 1):
            _assert_clear(visible(" ".join(words[:count]), POLICY, REDACTOR), sample)


def test_200_texts_are_redacted_whole() -> None:
    for sample in SAMPLES:
        found = REDACTOR.find(sample.text, POLICY)
        for start, end in sample.secrets:
            assert any(match.start <= start and end <= match.end for match in found), sample


def test_200_texts_as_finals_over_pauses() -> None:
    for seed, sample in enumerate(SAMPLES):
        words = sample.text.split()
        cuts = sorted(random.Random(seed).choices(range(len(words) + 1), k=2))
        pieces = [words[: cuts[0]], words[cuts[0] : cuts[1]], words[cuts[1] :]]
        done = mask_together([_decoded(piece) for piece in pieces], POLICY, REDACTOR)
        for masked in done:
            _assert_clear(masked.text, sample)
            _assert_clear("".join(word.text for word in masked.words), sample)
            for match in masked.matches:
                assert masked.text[match.start : match.end] == f"[{match.entity}]"


def _decoded(words: list[str]) -> Decoded:
    timed = tuple(DecodedWord(f" {word}", float(i), i + 0.9, 0.9) for i, word in enumerate(words))
    return Decoded(" ".join(words), "en", -0.2, 0.01, 1.1, timed)


_PIECES = st.sampled_from(
    ["4111", "1111", "4", "16", "202", "555", "0123", "DE89", "3704", "GB29", "NWBK", "a", "I", "US", "the", "ext", "x", "john",
     "john@", "@", "example.com", "mail.de", "fe80", "::1", "192.168", ".1", "219", "09", "9990", "+44", "one", "twenty", "double", "hundred", "oh", "um", "and", "at", "dot", "com", "underscore", "D", "E", "de", "20", "7946", "\u0664\u0661",
     "(", ")", "$", "%", "\u00e9", "\u3053", "social security", "4111 1111 1111 1111", "37828224631", "0005", "202-555-0123"]
)  # fmt: skip
_GLUE = st.sampled_from([" ", " ", " ", "", "-", ", ", ". ", ".", "/", "\u00a0", "\u200b", "  ", " - ", ":", "\n", ";"])
_TEXTS = st.one_of(
    st.lists(st.tuples(_PIECES, _GLUE), max_size=14).map(lambda parts: "".join(a + b for a, b in parts)),
    st.text(alphabet="0123456789 -.,()+/@aExDE:", max_size=60),
    st.text(max_size=40),
)


@settings(max_examples=400, deadline=None)
@given(_TEXTS, st.sampled_from(EVERY))
def test_every_cut_within_a_match_is_open_from_its_start(text: str, entity: str) -> None:
    for match in REDACTOR.find(text, (entity,)):
        assert 0 <= match.start < match.end <= len(text)
        for cut in range(match.start + 1, match.end + 1):
            assert open_suffix(text[:cut], (entity,)) <= match.start


@settings(max_examples=200, deadline=None)
@given(_TEXTS)
def test_no_digit_of_united_matches_is_shown(text: str) -> None:
    for match in REDACTOR.find(text, EVERY):
        for cut in range(match.start + 1, match.end + 1):
            shown = re.sub(r"\[[A-Z_]+\]", "", visible(text[:cut], EVERY, REDACTOR))
            assert len(re.findall(r"[\d@]", shown)) <= len(re.findall(r"[\d@]", text[: match.start]))


@settings(max_examples=200, deadline=None)
@given(_TEXTS)
def test_finds_are_sorted_apart_and_the_same_again(text: str) -> None:
    found = REDACTOR.find(text, EVERY)
    assert all(a.end <= b.start for a, b in pairwise(found))
    assert found == REDACTOR.find(text, EVERY)
    assert len(normalise(text)) == len(text)
