"""Promise 3: which records a reader passes on."""

from kaption.domain.reader import Reader
from tests.support.transcripts import completed, final, gap, partial, progress


def test_a_newer_revision_passes_and_an_older_or_equal_one_does_not() -> None:
    reader = Reader()
    assert [reader.accept(partial(0, revision)) for revision in (1, 3, 2, 3, 4)] == [True, True, False, False, True]


def test_partials_of_a_final_segment_are_dropped() -> None:
    reader = Reader()
    assert reader.accept(partial(1, 1))
    assert reader.accept(final(1))
    assert not reader.accept(partial(1, 9))
    assert not reader.accept(partial(0, 9))
    assert reader.accept(partial(2, 1))


def test_a_new_owner_counts_anew_and_the_replaced_one_is_heard_no_more() -> None:
    reader = Reader()
    assert reader.accept(partial(0, 7, epoch=5))
    assert reader.accept(partial(0, 1, epoch=8))
    assert not reader.accept(partial(0, 9, epoch=5))
    assert not reader.accept(partial(3, 1, epoch=5))
    assert reader.accept(partial(0, 2, epoch=8))


def test_a_final_passes_once() -> None:
    reader = Reader()
    assert [reader.accept(final(segment)) for segment in (0, 1, 1, 0, 2)] == [True, True, False, False, True]


def test_channels_runs_streams_and_tenants_do_not_disturb_each_other() -> None:
    reader = Reader()
    assert reader.accept(final(5))
    others = (
        {"channel": 1},
        {"run": "01J00000000000000000000000"},
        {"stream": "other"},
        {"tenant": "acme"},
    )
    assert all(reader.accept(partial(0, 1, **other)) for other in others)


def test_a_completed_run_has_no_more_partials_and_completes_once() -> None:
    reader = Reader()
    assert reader.accept(completed())
    assert not reader.accept(completed())
    assert not reader.accept(partial(9, 1))


def test_progress_passes_where_it_is_more_and_the_run_is_open() -> None:
    reader = Reader()
    shown = [ms for ms in (2000, 9000, 9000, 4000, 12_000) if reader.accept(progress(ms))]
    assert shown == [2000, 9000, 12_000]
    assert reader.accept(progress(2000, run="01J00000000000000000000000"))
    assert reader.accept(final(5))
    assert reader.accept(completed())
    assert not reader.accept(progress(60_000))


def test_every_gap_passes() -> None:
    reader = Reader()
    assert reader.accept(gap())
    assert reader.accept(gap())


def test_the_track_unheard_for_longest_is_forgotten() -> None:
    reader = Reader(remembered=2)
    reader.accept(final(0, stream="a"))
    reader.accept(final(0, stream="b"))
    reader.accept(partial(1, 1, stream="a"))
    reader.accept(final(0, stream="c"))
    assert not reader.accept(partial(0, 1, stream="a"))
    assert reader.accept(partial(0, 1, stream="b"))
