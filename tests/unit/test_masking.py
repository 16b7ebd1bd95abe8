"""Finals that are published together: one match over a pause is one label, and an end that may go on is held."""

import pytest

from kaption.adapters.presidio import PresidioRedactor
from kaption.domain.decoding.port import Decoded, DecodedWord
from kaption.domain.redaction.masking import (
    Before,
    goes_on,
    mask_together,
    published_end,
    unfinished,
    visible,
    without_numbers,
)
from kaption.testing.voices import DigitRedactor

POLICY = ("NUMBER",)
REDACTOR = DigitRedactor()
REAL = ("CREDIT_CARD", "EMAIL_ADDRESS", "IBAN_CODE", "PHONE_NUMBER", "US_SSN")
PRESIDIO = PresidioRedactor()


def decoded(text: str) -> Decoded:
    words = tuple(DecodedWord(f" {word}", float(i), i + 1.0, 0.5) for i, word in enumerate(text.split()))
    return Decoded(text, "en", -0.1, 0.0, 1.0, words)


def test_a_number_across_a_pause_is_masked_in_both() -> None:
    first, second = mask_together([decoded("it is 1234"), decoded("56 thank you")], POLICY, REDACTOR)
    assert first.text == "it is [NUMBER]"
    assert second.text == "thank you"
    assert [w.text for w in first.words] == [" it", " is", " [NUMBER]"]
    assert [w.text for w in second.words] == [" thank", " you"]


def test_words_within_a_match_become_one_with_their_times() -> None:
    (only,) = mask_together([decoded("call 12 34 56 now")], POLICY, REDACTOR)
    assert only.text == "call [NUMBER] now"
    assert [(w.text, w.start, w.end) for w in only.words] == [(" call", 0, 1), (" [NUMBER]", 1, 4), (" now", 4, 5)]
    assert [only.text[m.start : m.end] for m in only.matches] == ["[NUMBER]"]


def test_what_stays_unfinished_is_masked_where_it_has_too_much_of_a_number() -> None:
    for text, masked in {
        "it is 41115": "it is [REDACTED]",
        "it is 202 555": "it is [REDACTED]",
        "it is forty one eleven one": "it is [REDACTED]",
        "write to john.doe@": "write to [REDACTED]",
        "write to john dot doe at": "write to [REDACTED]",
        "it is 4111": "it is 4111",
        "in 1984": "in 1984",
        "it cost 12,500": "it cost 12,500",
        "the zip code is 0 0 4 7 1": "the zip code is 0 0 4 7 1",
        "in nineteen eighty four": "in nineteen eighty four",
        "we had dinner at home": "we had dinner at home",
    }.items():
        assert mask_together([decoded(text)], REAL, PRESIDIO)[0].text == masked
        assert mask_together([decoded(text)], REAL, PRESIDIO, ended=True)[0].text == text, "nothing follows"
        assert mask_together([decoded(text)], (), PRESIDIO)[0].text == text


def test_only_an_end_that_may_begin_a_number_is_held() -> None:
    assert goes_on("it is 123", POLICY)
    assert goes_on("it is one two three", REAL)
    assert goes_on("my iban is DE89", REAL)
    assert goes_on("write to john.smith", REAL)
    assert goes_on("write to john dot smith", REAL)
    assert goes_on("smith at example", REAL)
    assert not goes_on("before 10", POLICY)
    assert not goes_on("my card is 4111 1111 1111 1111", REAL)
    assert not goes_on("we met at home and left", REAL)
    assert unfinished("it is 123456 so we", POLICY) is None


def test_a_growing_text_shows_no_end_that_may_go_on() -> None:
    assert visible("it is 1234", POLICY, REDACTOR).rstrip() == "it is"
    assert visible("it is 123456 and", POLICY, REDACTOR) == "it is [NUMBER] and"


def test_a_number_in_what_is_not_agreed_on_is_withheld_though_a_word_follows() -> None:
    assert visible("it is 12345 um", POLICY, REDACTOR, settled=5) == "it is "
    assert visible("it is 12345 um", POLICY, REDACTOR) == "it is 12345 um"


def test_a_complete_match_may_still_go_on() -> None:
    assert goes_on("it is 123456", POLICY)
    assert not goes_on("it is 123456 people", POLICY)


def test_what_goes_on_behind_what_is_published_is_masked() -> None:
    end = published_end([decoded("my card is 4111 1111")], REAL, PRESIDIO)
    assert "4" not in end
    assert "1" not in end
    (next_,) = mask_together([decoded("um 11 okay thank you 12")], REAL, PRESIDIO, end)
    assert next_.text == "[CREDIT_CARD] okay thank you 12"
    assert [w.text for w in next_.words] == [" [CREDIT_CARD]", " okay", " thank", " you", " 12"]
    assert visible("um 11 okay thank", REAL, PRESIDIO, before=Before(end)) == "[CREDIT_CARD] okay "
    (plain,) = mask_together(
        [decoded("and 56 of them")], REAL, PRESIDIO, published_end([decoded("so")], REAL, PRESIDIO)
    )
    assert plain.text == "and 56 of them"


def test_four_digits_are_shown_and_what_makes_a_number_of_them_is_not() -> None:
    end = published_end([decoded("my card is 4111")], REAL, PRESIDIO)
    assert end.endswith("4111"), "that is out already"
    (next_,) = mask_together([decoded("1111 1111 1111 okay")], REAL, PRESIDIO, end)
    assert next_.text == "[CREDIT_CARD] okay"
    (people,) = mask_together([decoded("12 people came")], REAL, PRESIDIO, end)
    assert people.text == "12 people came"


def test_a_number_that_goes_on_and_on_stays_masked() -> None:
    end = ""
    for said in ("card 4111 11", "11", "um", "11 11", "", "11", "1 okay"):
        (masked,) = mask_together([decoded(said)], REAL, PRESIDIO, end)
        end = published_end([decoded(said)], REAL, PRESIDIO, end)
        assert not any(map(str.isdigit, masked.text))
        assert "1" not in end
        assert len(end) < 200
    assert masked.text == "[CREDIT_CARD] okay"


def test_a_domain_behind_a_masked_name_is_masked() -> None:
    end = published_end([decoded("write to john.doe@")], REAL, PRESIDIO)
    assert "john" not in end
    assert mask_together([decoded("gmail.com please")], REAL, PRESIDIO, end)[0].text == "[EMAIL_ADDRESS] please"


def test_a_partial_is_masked_with_what_waits_before_it() -> None:
    waits = Before(waiting="my card is 4111 1111")
    assert visible("1111 1111 and the rest", REAL, PRESIDIO, before=waits) == "and the "
    assert visible("1111 1111", REAL, PRESIDIO, before=waits) == ""
    assert visible("people came in then we", REAL, PRESIDIO, before=waits) == "people came in then "
    assert visible("gmail.com please write", REAL, PRESIDIO, before=Before(waiting="to john.doe@")) == "please "


def test_words_are_masked_where_the_text_is_also_behind_a_blank_first_word() -> None:
    for blank in ("", " "):
        words = tuple(
            DecodedWord(text, 0.0, 1.0, 0.5) for text in (blank, " card", " 411111111111", " 1", " 1", " okay")
        )
        (masked,) = mask_together([Decoded("", "en", -0.1, 0.0, 1.0, words)], REAL, PRESIDIO)
        assert masked.text == "card [CREDIT_CARD] okay"
        assert not any(char.isdigit() for word in masked.words for char in word.text)


def test_a_prompt_has_nothing_that_may_be_part_of_a_number_or_an_address() -> None:
    text = "my card is 4111 and john.smith wrote to x@y.de at ten"
    assert without_numbers(text, REAL) == "my card is and wrote to"
    assert without_numbers(text, ()) == text


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("write to j o h n underscore s m i t h at", "write to"),
        ("example dot com is it", "is it"),
        ("at example dot com, yes", ", yes"),
        ("it is fe80::abcd:ef01 there", "it is there"),
        ("we are at home", "we are at home"),
    ],
)
def test_nor_what_begins_an_address_or_ends_one(text: str, left: str) -> None:
    """It stands in snapshots, too, where the final has a mask."""
    assert without_numbers(text, REAL) == left


@pytest.mark.parametrize("separator", [" ", ","])
def test_who_counts_for_hours_leaves_no_more_to_mask_with_than_who_counts_to_four_hundred(separator: str) -> None:
    before = ""
    for first in range(1, 3001, 15):
        said = separator.join(map(str, range(first, first + 15)))
        before = published_end([decoded(said)], REAL, PRESIDIO, before)
        assert len(before) <= 1500
    [masked] = mask_together([decoded("4111 1111 1111 1112")], REAL, PRESIDIO, before)
    assert masked.text == "[CREDIT_CARD]"
    for _ in range(100):
        before = published_end([decoded("4111 1111 1111 1112")], REAL, PRESIDIO, before)
        assert len(before) <= 1500
    [masked] = mask_together([decoded("1111 and so on")], REAL, PRESIDIO, before)
    assert masked.text.endswith("] and so on")
