"""Shows nothing of thousands of spoken and recognised numbers and addresses, with pauses anywhere in them (promise 6).

And in thousands of sentences with numbers that no policy names, hardly a word is masked.
"""

import random
import re
from itertools import pairwise

import pytest

from kaption.adapters.presidio import PresidioRedactor
from kaption.domain.decoding.port import Decoded
from kaption.domain.redaction.masking import mask_together
from kaption.domain.redaction.spoken import normalise, scan
from kaption_schemas.records import FinalTranscript, PartialTranscript
from tests.support.saying import say
from tests.support.sensitive import Secret, harmless, secret

POLICY = ("CREDIT_CARD", "EMAIL_ADDRESS", "IBAN_CODE", "PHONE_NUMBER", "US_SSN")
REDACTOR = PresidioRedactor()
#: Digits that may be out before anybody can tell that they begin a number: a year has as many.
_FEW = 4
_DOMAIN = re.compile("zq(?:mail|post|example|nine|host)", re.IGNORECASE)


def digits(text: str) -> int:
    """Digits of ``text``, in figures and words, without those of masks."""
    runs = scan(normalise(re.sub(r"\[[A-Z_]+\]", "|", text))).runs
    return sum(len(run.digits) for run in runs)


def leaks(seed: int) -> str:
    """What a run shows too much of, cut and paused as ``seed`` says; empty where all is well."""
    dice = random.Random(seed)
    case = secret(dice)
    words = case.words
    cuts = sorted(dice.sample(range(1, len(words)), dice.randrange(min(6, len(words)))))
    parts = [" ".join(words[a:b]) for a, b in pairwise([0, *cuts, len(words)])]
    pauses = [dice.choice(_pauses(case)) for _ in parts]
    policy = POLICY if dice.random() < 0.7 else (case.entity,)
    out = say(parts, pauses, REDACTOR, policy, dice.choice([0.0, 1.0, 6.0]))
    finals = [o for o in out if isinstance(o, FinalTranscript)]
    shown = [" ".join(f.text for f in finals), " ".join(w.text for f in finals for w in f.words)]
    shown += [o.text for o in out if isinstance(o, PartialTranscript)]
    assert [f.segment for f in finals] == list(range(finals[-1].segment + 1))
    bad = [text for text in shown if (digits(text) > _FEW if case.digits else _DOMAIN.search(text))]
    return f"{seed}: {policy} {list(zip(pauses, parts, strict=True))} -> {bad}" if bad else ""


def _pauses(case: Secret) -> list[float]:
    # A part of a spoken address may be published if no final waited for its rest.
    spoken = not case.digits and "@" not in case.text
    return [0.7, 1.0, 2.0] if spoken else [0.7, 1.0, 2.0, 6.0]


def lost(text: str, finals: str) -> int:
    """How many words of ``text`` are missing in what was published."""
    return len(text.split()) - sum(not word.startswith("[") for word in finals.split())


@pytest.mark.parametrize("part", range(4))
def test_nothing_of_it_is_shown(part: int) -> None:
    assert [found for seed in range(part * 80, part * 80 + 80) if (found := leaks(seed))] == []


@pytest.mark.long
@pytest.mark.parametrize("part", range(10))
def test_nothing_of_5000_is_shown(part: int) -> None:
    assert [found for seed in range(part * 500, part * 500 + 500) if (found := leaks(seed))] == []


def test_none_of_3000_texts_has_a_digit_left() -> None:
    for seed in range(3000):
        case = secret(random.Random(seed))
        [masked] = mask_together([Decoded(case.text, "en", -0.1, 0.0, 1.0)], POLICY, REDACTOR)
        assert digits(masked.text) == 0, (case, masked.text)
        assert "zq" not in masked.text.lower(), (case, masked.text)


def test_of_5000_harmless_texts_hardly_a_word_is_masked() -> None:
    words = masked = 0
    for seed in range(5000):
        text = harmless(random.Random(seed))
        [final] = mask_together([Decoded(text, "en", -0.1, 0.0, 1.0)], POLICY, REDACTOR, ended=True)
        words += len(text.split())
        masked += lost(text, final.text)
    assert masked <= words / 100


def _masked(seed: int) -> tuple[int, int]:
    """Words, and masked words, of a harmless text that pauses part."""
    dice = random.Random(seed)
    text = harmless(dice)
    words = text.split()
    cuts = sorted(dice.sample(range(1, len(words)), dice.randrange(min(4, len(words)))))
    parts = [" ".join(words[a:b]) for a, b in pairwise([0, *cuts, len(words)])]
    out = say(parts, [dice.choice([0.7, 1.0, 2.0, 6.0]) for _ in parts], REDACTOR, POLICY, dice.choice([0.0, 1.0, 6.0]))
    return len(words), lost(text, " ".join(o.text for o in out if isinstance(o, FinalTranscript)))


def test_hardly_a_word_is_masked_where_pauses_part_it() -> None:
    counts = [_masked(seed) for seed in range(200)]
    assert sum(lost for _, lost in counts) <= sum(words for words, _ in counts) / 100


@pytest.mark.long
def test_of_5000_hardly_a_word_is_masked_where_pauses_part_it() -> None:
    counts = [_masked(seed) for seed in range(5000)]
    assert sum(lost for _, lost in counts) <= sum(words for words, _ in counts) / 100
