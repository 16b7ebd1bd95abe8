"""The pool's processes, and audio as the agents hand it over, for tests that crash them."""

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
from aiokafka import AIOKafkaProducer

from kaption.adapters.kafka.clients import security
from kaption.adapters.settings import Settings
from kaption.testing.pipeline import worker
from kaption.testing.processes import Child
from kaption_schemas.headers import event_headers, pcm_type, sequence
from kaption_schemas.records import AudioFormat, RunOptions, StreamEnded, StreamStarted
from kaption_schemas.topics import LIVE, Type
from tests.support.gated_worker import HELD

SPEECH = Path(__file__).resolve().parents[2] / "demo" / "speech"
FRAME_SECONDS = 0.1


@dataclass(frozen=True)
class Call:
    """One live run to publish: PCM of shape (samples, channels)."""

    tenant: str
    stream: str
    run: str
    pcm: npt.NDArray[np.int16]
    rate: int
    channels: str = "mix"


def speech(name: str, seconds: float) -> tuple[npt.NDArray[np.int16], int]:
    """The first ``seconds`` of shipped speech as (samples, 1), and its rate."""
    pcm, rate = soundfile.read(SPEECH / f"{name}.flac", dtype="int16", always_2d=True)
    return pcm[: round(seconds * rate)], rate


def gated_worker(settings: Settings, log: Path) -> Child:
    """As ``worker``; after its first finals it holds the next two batches in flight until it is killed (``held``)."""
    child = worker(settings, log)
    child.argv = [sys.executable, "-m", "tests.support.gated_worker"]
    return child


async def held(child: Child, seconds: float = 100) -> None:
    """Wait until a gated worker has two batches in flight; raises ``TimeoutError``."""
    async with asyncio.timeout(seconds):
        while HELD not in child.log.read_text(errors="replace"):
            await asyncio.sleep(0.05)


class CallPublisher:
    """Publishes calls to audio.live.v1, in steps, so that a test can do something between."""

    def __init__(self, settings: Settings, calls: Sequence[Call]) -> None:
        self._producer = AIOKafkaProducer(**security(settings))
        self._calls = calls
        self._at = dict.fromkeys((call.run for call in calls), 0)

    async def __aenter__(self) -> "CallPublisher":
        """Connect and start each run."""
        await self._producer.start()
        for call in self._calls:
            options = RunOptions(channels="split" if call.channels == "split" else "mix", redaction=())
            audio = AudioFormat(rate=call.rate, channels=call.pcm.shape[1])
            body = StreamStarted(format=audio, options=options)
            await self._send(call, Type.STARTED, body.model_dump_json().encode())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Disconnect."""
        await self._producer.stop()

    async def play(self, until: float, pace: float = 4.0) -> None:
        """Publish every call up to ``until`` seconds of its audio, ``pace`` times as fast as it was spoken."""
        while any(self._due(call, until) for call in self._calls):
            for call in self._calls:
                if self._due(call, until):
                    await self._frame(call)
            await asyncio.sleep(FRAME_SECONDS / pace)

    async def end(self) -> None:
        """End every run."""
        for call in self._calls:
            body = StreamEnded(last_sequence=self._at[call.run] - 1)
            await self._send(call, Type.ENDED, body.model_dump_json().encode())

    def _due(self, call: Call, until: float) -> bool:
        done = self._at[call.run] * round(FRAME_SECONDS * call.rate)
        return done < min(until * call.rate, len(call.pcm))

    async def _frame(self, call: Call) -> None:
        number, size = self._at[call.run], round(FRAME_SECONDS * call.rate)
        body = call.pcm[number * size : (number + 1) * size].astype("<i2").tobytes()
        place = {"sequence": sequence(number), "firstsample": str(number * size)}
        self._at[call.run] += 1
        await self._send(call, Type.CHUNK, body, pcm_type(call.rate, call.pcm.shape[1]), place)

    async def _send(
        self,
        call: Call,
        kind: Type,
        body: bytes,
        content: str = "application/json",
        extra: dict[str, str] | None = None,
    ) -> None:
        headers = event_headers(
            kind, id=f"{call.run}/{kind}", source="/kaption/streams", run=call.run, content_type=content, extra=extra
        )
        key = f"{call.tenant}/{call.stream}".encode()
        await self._producer.send_and_wait(LIVE.name, body, key=key, headers=headers)
