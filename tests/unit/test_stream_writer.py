"""The sample clock of a run that is published."""

from typing import Any

from kaption.client.publisher import StreamWriter
from kaption_schemas.codec import Body, Sound
from kaption_schemas.records import AudioFormat, RunOptions
from kaption_schemas.topics import Type


class Kept:
    """Keeps the places of frames, in samples: first, and the one behind the last."""

    def __init__(self) -> None:
        self.frames: list[tuple[int, int]] = []

    async def _send(self, _kind: Type, _stream: str, _run: str, body: Body, _number: int = -1, sample: int = 0) -> None:
        if isinstance(body, Sound):
            self.frames.append((sample, sample + len(body.data) // 2))


async def test_what_fills_a_frame_up_moves_nothing_behind_it() -> None:
    kept: Any = Kept()
    writer = StreamWriter(kept, "call", AudioFormat(rate=16_000, channels=1), RunOptions())
    for _ in range(2):
        await writer.send(bytes(2 * 80))  # 5 ms, which is less than a frame may have
        await writer.skip(1600)
    await writer.send(bytes(2 * 1600))
    await writer.skip(1)
    await writer.send(bytes(2 * 80))
    await writer.skip(100)  # less than it was filled up with
    await writer.send(bytes(2 * 1600))
    assert kept.frames == [(0, 320), (1680, 2000), (3360, 4960), (4961, 5281), (5281, 6881)]
