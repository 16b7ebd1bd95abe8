"""How the benchmarks count revisions and latencies of words."""

import pytest

from bench.speech import Heard
from bench.words import Showing, erased, flicker, latencies, percentile


def shows(*texts: str, segment: int = 0) -> list[Showing]:
    return [Showing(float(n), segment, 0.0, 10.0, text, "") for n, text in enumerate(texts)]


@pytest.mark.parametrize(
    ("texts", "count"),
    [
        (["one", "one two", "one two three"], 0),
        (["one too", "one two three"], 1),
        (["one two three", "nine two three"], 3),  # what stands behind the change moves, and is read again
        (["one two three", "one"], 2),
        (["One, two", "one two!"], 0),
        (["one two", "", "one two"], 2),
        ([], 0),
    ],
)
def test_words_that_a_later_record_changes_or_takes_away_are_counted(texts: list[str], count: int) -> None:
    assert erased(shows(*texts)) == count


def test_each_segment_is_counted_by_itself_in_the_order_of_its_records() -> None:
    first, second = shows("a b", "a c", segment=0), shows("x", "x y", segment=1)
    assert erased([*reversed(first), *second]) == 1
    assert flicker([[*first, *second], shows("a b", "c d e", "c d e f")]) == 0.5
    assert flicker([]) == 0


def test_a_word_counts_from_its_end_to_the_first_record_that_shows_and_that_commits_it() -> None:
    heard = Heard("good morning", (("good", 1.0), ("morning", 2.0)))
    records = [
        Showing(1.5, 0, 0.0, 1.4, "Good", ""),
        Showing(2.5, 0, 0.0, 2.4, "Good morning.", "Good"),
        Showing(4.0, 0, 0.0, 2.4, "good morning", "good morning"),
    ]
    assert latencies(records, heard, 0.0) == ([0.5, 0.5], [1.5, 2.0])
    assert latencies(records, heard, 1.5) == ([0.5], [2.0])


def test_a_percentile_is_a_value_of_the_list() -> None:
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile([3.0, 1.0, 2.0], 0.95) == 3.0
