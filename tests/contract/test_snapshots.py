"""Snapshots that an earlier version wrote are read, and their runs go on as if nothing had been. The files are never edited."""

from dataclasses import replace
from itertools import repeat
from pathlib import Path

import pytest

from kaption.domain.decoding.port import Decoded, Window
from kaption.domain.records import AudioRecord, Latency
from kaption.domain.run.session import Session
from kaption.testing.voices import spell
from kaption_schemas.reasons import Reason
from kaption_schemas.records import AudioFormat, Gap, RunOptions, StreamCompleted, StreamStarted
from kaption_schemas.topics import Type
from tests.support.runs import CONFIG, KEY, PORTS, START_MS, babble, finals, play, records

SNAPSHOTS = Path(__file__).parent / "snapshots"
RATE = 44_100
LETTERS = str.maketrans("0123456789", "abcdefghij")
#: Where the open run was killed, and the offset that its snapshot must be replayed from.
KILLED, SETTLED = 103, 74


def log() -> list[AudioRecord]:
    """The run that the snapshots are of: a split call, a frame of it lost and one repeated."""
    shape = [(0.7, False), (1.6, True), (0.9, False), (1.1, True), (1.2, False), (0.8, True), (0.9, False)]
    options = RunOptions(
        channels="split", redaction=("NUMBER",), vocabulary=("Kaption",), metadata={"caller": "harbour"}
    )
    body = StreamStarted(format=AudioFormat(rate=RATE, channels=2), options=options)
    frames = [r for r in records(babble(shape, RATE, 2), repeat(RATE // 25), RATE) if r.sequence != 50]
    begun = AudioRecord(Type.STARTED, KEY, 0, START_MS, START_MS, said=body)
    return [replace(r, offset=n) for n, r in enumerate([begun, *frames[:62], frames[45], *frames[62:]])]


def letters(window: Window) -> Decoded:
    """A decode without digits, so that no final is held for an open end."""
    decoded = spell(window)
    words = tuple(replace(word, text=word.text.translate(LETTERS)) for word in decoded.words)
    return replace(decoded, text=decoded.text.translate(LETTERS), words=words)


@pytest.mark.parametrize("version", [1])
def test_an_open_run_goes_on(version: int) -> None:
    whole = log()
    before = play(Session(KEY, Latency.LIVE, CONFIG, PORTS), whole[:KILLED], decode=letters)
    again = Session.restore((SNAPSHOTS / f"{version}.open.json").read_bytes(), CONFIG, PORTS)
    after = play(again, whole[SETTLED:], decode=letters)
    undisturbed = play(Session(KEY, Latency.LIVE, CONFIG, PORTS), whole, decode=letters)
    assert sorted(finals(before) + finals(after)) == sorted(finals(undisturbed))
    assert finals(before)
    assert finals(after)
    [gap] = [o for o in [*before, *after] if isinstance(o, Gap)]
    assert (gap.first_sequence, gap.reason) == (50, Reason.LOST)
    done = [o for o in after if isinstance(o, StreamCompleted)]
    assert done == [o for o in undisturbed if isinstance(o, StreamCompleted)]
    assert [(o.gaps, o.repeats) for o in done] == [(1, 1)] * 2


@pytest.mark.parametrize("version", [1])
def test_a_closed_run_stays_closed(version: int) -> None:
    run = Session.restore((SNAPSHOTS / f"{version}.closed.json").read_bytes(), CONFIG, PORTS)
    assert run.closed
    assert run.settled_offset() is None
