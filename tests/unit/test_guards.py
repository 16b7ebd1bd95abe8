"""Each guard fires on its case and leaves speech alone."""

import numpy as np
import pytest

from kaption.domain.decoding.guards import (
    Guard,
    Loop,
    Quality,
    compression_ratio,
    dense,
    find_loop,
    loop_cut,
    no_signal,
    retry,
    suppress,
    token_budget,
)

GOOD = Quality(avg_logprob=-0.3, no_speech_prob=0.05, compression_ratio=1.3)
SILENT = Quality(avg_logprob=-1.2, no_speech_prob=0.7, compression_ratio=1.0)
QUIET_BUT_SURE = Quality(avg_logprob=-0.5, no_speech_prob=0.9, compression_ratio=1.0)
UNSURE = Quality(avg_logprob=-1.2, no_speech_prob=0.1, compression_ratio=1.0)
REPEATED = Quality(avg_logprob=-0.1, no_speech_prob=0.05, compression_ratio=2.5)


@pytest.mark.parametrize(
    ("quality", "tokens", "guard"),
    [
        (GOOD, 20, None),
        (GOOD, 41, Guard.OVER_BUDGET),
        (REPEATED, 20, Guard.REPETITION),
        (UNSURE, 20, Guard.LOW_LOGPROB),
        (SILENT, 20, None),
    ],
)
def test_what_is_decoded_again(quality: Quality, tokens: int, guard: Guard | None) -> None:
    assert retry(quality, range(tokens), seconds=5.0) is guard


def test_a_text_of_which_much_was_said_before_is_decoded_again() -> None:
    first, second = list(range(10)), list(range(10, 17))
    assert retry(GOOD, [*first, *second, *second, *first, *second], 10.0) is Guard.REPETITION
    assert retry(GOOD, [*first, *second, *first[:6]], 10.0) is None, "a phrase may well come again"
    assert retry(GOOD, [*first[:5] * 2], 10.0) is None, "so may a short one"


def test_what_repeats_itself_and_took_its_time_was_said_so() -> None:
    """Three prompts in a row may be nearly the same; made up, they would have come on top of what was said."""
    sentence = list(range(14))
    three = [*sentence, 50, *sentence, 50, *sentence]
    assert retry(REPEATED, three, 14.0) is None
    assert loop_cut(three, slow=not dense(three, 14.0)) == len(three)
    assert retry(REPEATED, three, 8.0) is Guard.REPETITION
    assert loop_cut(three, slow=not dense(three, 8.0)) == len(sentence) + 1
    noise = Quality(-0.2, 0.9, 3.0)
    assert retry(noise, three, 14.0) is Guard.REPETITION, "where nobody speaks it takes its time, too"


@pytest.mark.parametrize(
    ("text", "quality", "guard"),
    [
        ("Hello there.", GOOD, None),
        ("Hello there.", SILENT, Guard.NO_SPEECH),
        ("Hello there.", QUIET_BUT_SURE, None),
        ("Hello there.", UNSURE, None),
        ("No no no.", REPEATED, None),
        ("", SILENT, None),
    ],
)
def test_what_is_suppressed(text: str, quality: Quality, guard: Guard | None) -> None:
    assert suppress(text, quality) is guard


def test_what_is_said_twice_where_nobody_speaks_is_noise() -> None:
    assert suppress("So it is, so it is.", QUIET_BUT_SURE, repeated=True) is Guard.REPETITION
    assert suppress("So it is, so it is.", GOOD, repeated=True) is None
    assert suppress("No no no no no.", REPEATED, repeated=True) is Guard.REPETITION
    assert suppress("So it is.", QUIET_BUT_SURE) is None


def test_output_that_equals_the_vocabulary_is_an_echo() -> None:
    assert suppress("Kaption, Ångström.", GOOD, ("Kaption", "Ångström")) is Guard.VOCABULARY_ECHO
    assert suppress("Kaption and Ångström.", GOOD, ("Kaption", "Ångström")) is None
    assert suppress("Kaption.", GOOD, ("Kaption",)) is None
    assert suppress("Kaption.", QUIET_BUT_SURE, ("Kaption",)) is Guard.VOCABULARY_ECHO


@pytest.mark.parametrize("text", ["Thanks for watching!", "Subtitles by the Amara.org community", "you", "Thank you."])
def test_known_artefacts_go_only_where_no_speech_was_heard(text: str) -> None:
    assert suppress(text, GOOD, heard=False) is Guard.KNOWN_ARTEFACT
    assert suppress(text, GOOD, heard=True) is None


def test_loops_are_cut_to_one_round() -> None:
    assert loop_cut([1, 2, *[7, 8, 9] * 4]) == 5
    assert loop_cut([1, 2, *[7] * 12]) == 3
    assert loop_cut([]) == 0


def test_an_utterance_said_twice_without_an_end_is_cut() -> None:
    assert loop_cut([1, 2, 3, 4, 5] * 2, closed=False) == 5
    assert loop_cut([1, 2, 3, 4, 5] * 2) == 10
    assert loop_cut([1, 2, 3] * 2, closed=False) == 6
    assert retry(GOOD, range(10), 5.0, closed=False) is Guard.UNCLOSED
    assert retry(SILENT, range(10), 5.0, closed=False) is None


def test_repeated_digits_are_no_loop() -> None:
    assert loop_cut([1, 2, *[7] * 11]) == 13
    assert loop_cut([*[7, 8, 9, 10] * 3, 5]) == 13
    assert loop_cut([*[7, 8, 9, 10, 11, 12] * 3]) == 18


def test_only_digital_silence_is_no_signal() -> None:
    assert no_signal(np.zeros(0, np.float32)) is Guard.NO_SIGNAL
    assert no_signal(np.full(100, 1 / 32768, np.float32)) is Guard.NO_SIGNAL
    assert no_signal(np.array([0, 0, 0.001], np.float32)) is None


def test_figures() -> None:
    assert compression_ratio("") == 0.0
    assert compression_ratio("the end " * 40) > 2.4 > compression_ratio("Please enter your number now.")
    assert token_budget(5.0) == 40


def test_a_clause_said_thrice_is_cut_though_its_last_round_breaks_off() -> None:
    clause = list(range(1, 10))
    assert loop_cut([50, *clause, *clause, *clause, 1, 2, 77]) == 1 + len(clause)
    assert loop_cut([50, *clause, *clause, 77]) == 2 + 2 * len(clause), "twice may well be said"
    short = [1, 2, 3, 4]
    assert loop_cut([*short, *short, *short, 77]) == 13, "a short one may well be said thrice"


def test_an_unclosed_text_that_begins_again_is_cut_there() -> None:
    sentence = list(range(1, 20))
    assert loop_cut([*sentence, *sentence[:7]], closed=False) == len(sentence)
    assert loop_cut([*sentence, *sentence[:7]]) == len(sentence) + 7, "a closed one was heard so"
    assert loop_cut([*sentence, *sentence[:5]], closed=False) == len(sentence) + 5


def test_what_repeats_itself_is_found_wherever_it_stands() -> None:
    assert find_loop([50, *[7, 8, 9] * 4, 60]) == Loop(1, 3, 13)
    assert find_loop([50, *[7, 8, 9] * 4, 7, 8]) == Loop(1, 3, 15), "the last round may break off"
    assert find_loop([7] * 6) == Loop(0, 1, 6)
    assert find_loop([*range(5), *range(5)]) == Loop(0, 5, 10)
    assert find_loop([7, 7, 8, 9]) is None, "twice, of two tokens, is chance"
    assert find_loop([]) is None
