"""Runs for session tests: audio, its records in any slicing, and a driver that decodes what a session wants."""

import random
from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt

from kaption.domain.decoding.port import Decoded, Kind, Window
from kaption.domain.records import AudioRecord, Latency, Output, RunKey
from kaption.domain.run.config import Ports, SessionConfig
from kaption.domain.run.session import Session
from kaption.testing.voices import MODEL, DigitRedactor, EnergyDetector, spell
from kaption_schemas.records import FinalTranscript, StreamEnded
from kaption_schemas.topics import Type

KEY = RunKey("default", "call", "01HZZZZZZZZZZZZZZZZZZZZZZZ")
PORTS = Ports(EnergyDetector, DigitRedactor(), MODEL)
CONFIG = SessionConfig(prompt_seconds=10)
START_MS = 1_700_000_000_000


def babble(seconds: Iterable[tuple[float, bool]], rate: int, channels: int = 1, seed: int = 1) -> npt.NDArray[np.int16]:
    """Noise and silence in turn, shape (n, channels)."""
    rng = np.random.default_rng(seed)
    parts = [
        rng.normal(0, 3000 if loud else 1, (int(length * rate), channels)).astype(np.int16) for length, loud in seconds
    ]
    return np.concatenate(parts)


def records(pcm: npt.NDArray[np.int16], sizes: Iterable[int], rate: int, *, ended: bool = True) -> list[AudioRecord]:
    """The frames of ``pcm`` in pieces of ``sizes`` samples, and the end."""
    out: list[AudioRecord] = []
    at, sequence = 0, 0
    pieces = iter(sizes)
    while at < len(pcm):
        piece = pcm[at : at + next(pieces)]
        now = START_MS + (at + len(piece)) * 1000 // rate
        out.append(
            AudioRecord(
                Type.CHUNK, KEY, len(out), now, now, sequence, at, len(piece), rate, pcm.shape[1], piece.tobytes()
            )
        )
        at += len(piece)
        sequence += 1
    if ended:
        out.append(
            AudioRecord(
                Type.ENDED,
                KEY,
                len(out),
                out[-1].timestamp_ms,
                out[-1].received_ms,
                said=StreamEnded(last_sequence=sequence - 1),
            )
        )
    return out


def session(latency: Latency = Latency.LIVE, config: SessionConfig = CONFIG) -> Session:
    return Session(KEY, latency, config, PORTS)


def decode_all(
    run: Session, now_ms: int, decode: Callable[[Window], Decoded] = spell, chance: Callable[[], bool] = lambda: True
) -> list[Output]:
    """Decode what is wanted, as often as ``chance`` lets it, until nothing is; what comes out counts as committed."""
    out: list[Output] = []
    while wanted := [w for w in run.wants(now_ms) if chance()]:
        for want in wanted:
            out += run.apply(want.window_id, decode(run.begin(want.window_id)), now_ms)
        run.drafted()
        run.committed()
        if all(w.kind is Kind.PARTIAL for w in wanted):
            break
    return out


def play(
    run: Session,
    stream: Iterable[AudioRecord],
    seed: int | None = None,
    decode: Callable[[Window], Decoded] = spell,
) -> list[Output]:
    """Feed a session and decode meanwhile, at random moments if there is a seed; then decode the rest."""
    dice = random.Random(seed)
    out: list[Output] = []
    now = 0
    for record in stream:
        now = record.timestamp_ms
        out += run.feed(record)
        out += decode_all(run, now, decode, chance=(lambda: dice.random() < 0.5) if seed is not None else lambda: True)
    return out + decode_all(run, now, decode)


def finals(outputs: Iterable[Output]) -> list[str]:
    """Finals as bytes would compare."""
    return [o.model_dump_json() for o in outputs if isinstance(o, FinalTranscript)]
