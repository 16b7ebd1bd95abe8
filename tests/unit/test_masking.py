"""Finals that are published together: one match over a pause is one label, and an end that may go on is held."""

from kaption.domain.decoding import Decoded, DecodedWord
from kaption.domain.masking import carries, goes_on, mask_together, unfinished, visible
from tests.support.voices import DigitRedactor

POLICY = ("NUMBER",)
REDACTOR = DigitRedactor()


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


def test_what_stays_unfinished_is_masked_from_four_digits_on() -> None:
    assert mask_together([decoded("it is 1234")], POLICY, REDACTOR)[0].text == "it is [REDACTED]"
    assert mask_together([decoded("we close at 5")], POLICY, REDACTOR)[0].text == "we close at 5"
    assert mask_together([decoded("it is 1234")], (), REDACTOR)[0].text == "it is 1234"


def test_only_an_end_that_may_begin_a_number_is_held() -> None:
    assert unfinished("it is 123", POLICY, REDACTOR) is not None
    assert unfinished("before 10", POLICY, REDACTOR) is None
    assert unfinished("it is 123456", POLICY, REDACTOR) is None


def test_a_growing_text_shows_no_end_that_may_go_on() -> None:
    assert visible("it is 1234", POLICY, REDACTOR).rstrip() == "it is"
    assert visible("it is 123456 and", POLICY, REDACTOR) == "it is [NUMBER] and"


def test_a_number_in_what_is_not_agreed_on_is_withheld_though_a_word_follows() -> None:
    assert visible("it is 12345 um", POLICY, REDACTOR, settled=5) == "it is "
    assert visible("it is 12345 um", POLICY, REDACTOR) == "it is 12345 um"


def test_a_complete_match_may_still_go_on() -> None:
    assert goes_on("it is 123456", POLICY, REDACTOR)
    assert not goes_on("it is 123456 and", POLICY, REDACTOR)


def test_digits_behind_a_number_that_was_masked_unfinished_belong_to_it() -> None:
    (first,) = mask_together([decoded("it is 1234")], POLICY, REDACTOR)
    assert carries(first)
    (second,) = mask_together([decoded("56, thank you 12")], POLICY, REDACTOR, carried=True)
    assert second.text == "[REDACTED], thank you 12"
    assert not carries(second)
    assert visible("56 thank you", POLICY, REDACTOR, carried=True) == "[REDACTED] thank you"
    (plain,) = mask_together([decoded("and 56")], POLICY, REDACTOR, carried=True)
    assert plain.text == "and 56"
