"""In whatever order partials and finals arrive, what a reader shows only moves forward."""

from hypothesis import given
from hypothesis import strategies as st

from kaption.domain.reading.reader import Reader
from kaption_schemas.records import FinalTranscript, PartialTranscript, Transcript
from tests.support.transcripts import final, partial

partials = st.builds(
    partial, segment=st.integers(0, 4), revision=st.integers(1, 6), epoch=st.integers(1, 3), channel=st.integers(0, 1)
)
finals = st.builds(final, segment=st.integers(0, 4), channel=st.integers(0, 1))
arrivals = st.lists(st.one_of(partials, finals), max_size=60)


@given(arrivals)
def test_what_passes_only_moves_forward(records: list[Transcript]) -> None:
    reader = Reader()
    last: dict[int, int] = {}
    epochs: dict[int, int] = {}
    newest: dict[tuple[int, int], tuple[int, int]] = {}
    for record in records:
        if not reader.accept(record):
            continue
        if isinstance(record, FinalTranscript):
            assert record.segment > last.get(record.channel, -1)
            last[record.channel] = record.segment
            continue
        assert isinstance(record, PartialTranscript)
        assert record.segment > last.get(record.channel, -1)
        assert record.epoch >= epochs.get(record.channel, 0)
        epochs[record.channel] = record.epoch
        where = (record.channel, record.segment)
        assert (record.epoch, record.revision) > newest.get(where, (0, 0))
        newest[where] = (record.epoch, record.revision)


@given(arrivals)
def test_a_second_reading_of_the_same_records_is_no_news(records: list[Transcript]) -> None:
    reader = Reader()
    for record in records:
        reader.accept(record)
    assert not any(reader.accept(record) for record in records)


@given(st.permutations(range(1, 7)))
def test_the_newest_revision_is_shown_last_in_any_order(order: list[int]) -> None:
    reader = Reader()
    shown = [revision for revision in order if reader.accept(partial(0, revision))]
    assert shown[-1] == 6
    assert shown == sorted(shown)
