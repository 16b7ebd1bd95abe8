"""Tests the reports of a file's progress: they are rare, cover only what is committed, and all its channels."""

from kaption.domain.records import AudioRecord, RunKey
from kaption_gpu.lanes.file_progress import TELL_MS, FileProgress
from kaption_gpu.lanes.records import Incoming
from kaption_schemas.records import FinalTranscript, StreamProgress
from kaption_schemas.topics import Type
from tests.support.transcripts import RUN, final

NOW = 1_700_000_000_000


def chunk(channels: int = 1, total: int | None = 8000 * 60) -> Incoming:
    audio = AudioRecord(Type.CHUNK, RunKey("default", "call", RUN), 0, 0, 0, rate=8000, channels=channels)
    return Incoming(audio, None, {}, total)


def told(progress: FileProgress, *finals: FinalTranscript, seconds: float) -> StreamProgress | None:
    return progress.after(finals, NOW + round(seconds * 1000))


def test_it_is_told_after_finals_and_at_most_every_two_seconds() -> None:
    progress = FileProgress()
    progress.heard(chunk(), split=False)
    first = told(progress, final(0), final(1), seconds=0)
    assert first == StreamProgress(tenant="default", stream="call", run=RUN, done_ms=8000, total_ms=60_000, segments=2)
    assert told(progress, seconds=9) is None
    assert told(progress, final(2), seconds=TELL_MS / 1000 - 0.1) is None
    later = told(progress, final(3), seconds=TELL_MS / 1000)
    assert later is not None
    assert (later.done_ms, later.segments) == (16_000, 4)


def test_the_length_may_be_unknown() -> None:
    progress = FileProgress()
    progress.heard(chunk(total=None), split=False)
    found = told(progress, final(0), seconds=0)
    assert found is not None
    assert found.total_ms is None


def test_a_file_is_as_far_as_its_last_channel() -> None:
    progress = FileProgress()
    progress.heard(chunk(channels=2), split=True)
    assert told(progress, final(0), final(1), seconds=0) is None
    found = told(progress, final(0, channel=1), seconds=1)
    assert found is not None
    assert (found.done_ms, found.segments) == (4000, 3)
    mixed = FileProgress()
    mixed.heard(chunk(channels=2), split=False)
    assert told(mixed, final(0), seconds=0) is not None
