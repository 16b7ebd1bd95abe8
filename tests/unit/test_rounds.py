"""Which rounds of a text that repeats itself were said: those that have time of their own, and sound alike."""

import numpy as np

from kaption.domain.decoding.guards import Loop
from kaption_gpu.engine.backends.rounds import said
from kaption_gpu.engine.backends.runtime import Mel, TokenTimes

CLAUSE = (5, 6, 7, 8)
SECONDS = 8


def times(starts: list[float]) -> TokenTimes:
    return TokenTimes(np.array(starts), np.ones(len(starts) - 1))


def spread(count: int, begin: float = 0.5, each: float = 0.25) -> list[float]:
    return [begin + each * n for n in range(count + 1)]


def sound(starts: list[float], tokens: tuple[int, ...]) -> Mel:
    """A mel in which each token has a colour of its own."""
    mel = np.zeros((80, SECONDS * 100), np.float32)
    colours = np.random.default_rng(0).normal(0, 1, (100, 80)).astype(np.float32)
    for token, a, b in zip(tokens, starts, starts[1:], strict=False):
        mel[:, round(a * 100) : round(b * 100)] = colours[token][:, None]
    return mel


def test_rounds_that_took_their_time_were_said() -> None:
    tokens = (1, *CLAUSE * 3, 2)
    starts = spread(len(tokens))
    assert said(tokens, Loop(1, 4, 13), times(starts), sound(starts, tokens)) == (tokens, 3)


def test_rounds_that_fall_together_in_a_point_were_not() -> None:
    tokens = CLAUSE * 4
    starts = [*spread(8), *[2.5] * 8]
    assert said(tokens, Loop(0, 4, 16), times(starts), sound(starts, tokens)) == (CLAUSE * 2, 2)


def test_a_made_up_round_amid_real_ones_goes() -> None:
    tokens = CLAUSE * 3
    starts = [*spread(4), *[1.5] * 4, *spread(4, 1.5)[1:]]
    assert said(tokens, Loop(0, 4, 12), times(starts), sound(starts, tokens)) == (CLAUSE * 2, 2)


def test_rounds_that_do_not_sound_alike_were_not_said() -> None:
    """A model that does not know the language says one phrase to all of it."""
    tokens = CLAUSE * 3
    starts = spread(len(tokens))
    spoken = tuple(range(20, 32))
    assert said(tokens, Loop(0, 4, 12), times(starts), sound(starts, spoken)) == (CLAUSE, 1)


def test_the_first_round_stays_whatever_its_times_are() -> None:
    tokens = CLAUSE * 3
    starts = [1.0] * 13
    assert said(tokens, Loop(0, 4, 12), times(starts), sound(starts, tokens)) == (CLAUSE, 1)


def test_single_words_are_told_by_their_time_alone() -> None:
    tokens = (9,) * 6
    starts = [*spread(4, each=0.4), 2.1, 2.1]
    assert said(tokens, Loop(0, 1, 6), times(starts), sound(starts, tokens)) == ((9,) * 4, 4)


def test_a_round_that_breaks_off_stands_if_it_was_heard() -> None:
    tokens = (*CLAUSE * 2, 5, 6)
    starts = spread(len(tokens))
    assert said(tokens, Loop(0, 4, 10), times(starts), sound(starts, tokens)) == (tokens, 3)
    late = [*starts[:9], 2.5, 2.5]
    assert said(tokens, Loop(0, 4, 10), times(late), sound(late, tokens)) == (CLAUSE * 2, 2)
