"""Tests promise 3: the records and the run that a reader passes on, and its end."""

import pytest

from kaption.domain.reading.reader import Newest, OneRun, Reader
from kaption_schemas.errors import RunFailedError
from kaption_schemas.reasons import NORMAL_ENDS, Reason
from tests.support.transcripts import RUN, completed, final, gap, partial, progress


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


OTHER = "01J00000000000000000000000"


def test_a_run_is_over_when_every_channel_of_it_is_and_other_runs_are_not_read() -> None:
    one = OneRun(("a", "b"))
    for record in (final(0, stream="a"), final(0, stream="a", channel=1), progress(2000, stream="a")):
        assert one.takes(record)
        assert not one.after(record)
    assert not one.takes(final(0, stream="a", run=OTHER))
    assert not one.after(completed(stream="b"))
    assert not one.after(completed(stream="a", channel=1))
    assert one.after(completed(stream="a"))
    one.check()


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason not in NORMAL_ENDS])
def test_a_run_that_was_refused_or_given_up_is_told_with_its_reason(reason: Reason) -> None:
    one = OneRun(("call",))
    assert one.after(completed(0, reason=reason))
    with pytest.raises(RunFailedError) as caught:
        one.check()
    assert str(caught.value) == f"call: {reason}: {reason.meaning}"
    assert caught.value.runs == (completed(0, reason=reason),)


@pytest.mark.parametrize("reason", sorted(NORMAL_ENDS))
def test_a_run_that_went_as_far_as_its_audio_has_not_failed(reason: Reason) -> None:
    one = OneRun(("call",))
    assert one.after(completed(0, reason=reason))
    one.check()


def test_a_chosen_run_is_read_whatever_else_comes_first() -> None:
    one = OneRun(("call",), OTHER)
    assert not one.takes(final(0))
    assert one.takes(final(0, run=OTHER))


def test_the_newest_run_is_the_one_that_began_last_and_what_grew_in_it_is_over() -> None:
    newest = Newest()
    newest.add(final(0, "older"), 1000)
    newest.add(partial(1, 1, run=OTHER), 3000)
    newest.add(final(0, "newer", run=OTHER), 3500)
    newest.add(final(1, "older, late"), 4000)
    newest.add(completed(2), 4000)
    newest.add(final(0, stream="b"), 10)
    assert newest.runs == {"call": (OTHER, [final(0, "newer", run=OTHER)]), "b": (RUN, [final(0, stream="b")])}
