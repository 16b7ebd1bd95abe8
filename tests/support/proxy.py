"""A TCP proxy before one Kafka node that can hold one request back, as a network does, and let it through later."""

import asyncio
import contextlib
import struct

END_TXN = 26
PRODUCE = 0


async def _frame(reader: asyncio.StreamReader) -> bytes:
    (size,) = struct.unpack(">i", await reader.readexactly(4))
    return await reader.readexactly(size)


def _packed(frame: bytes) -> bytes:
    return struct.pack(">i", len(frame)) + frame


class HoldingProxy:
    """``hold`` names the API key of the next request that is kept, while its client's connection is cut; ``release`` hands it on.

    ``let_go_at`` names the API key of a request that is handed on after what is held.
    """

    def __init__(self, port: int, upstream: int) -> None:
        self.hold: int | None = None
        self.let_go_at: int | None = None
        self.seen: list[int] = []
        self.answers: list[int] = []
        self._port, self._upstream = port, upstream
        self._held: tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes] | None = None
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> "HoldingProxy":
        """Listen on loopback."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Listen no more."""
        assert self._server is not None
        self._server.close()

    @property
    def holding(self) -> bool:
        """Whether a request is held."""
        return self._held is not None

    async def release(self) -> None:
        """Hand on what is held; its error code goes to ``answers``."""
        assert self._held is not None
        (reader, writer, frame), self._held = self._held, None
        writer.write(_packed(frame))
        await writer.drain()
        answer = await _frame(reader)
        self.answers.append(struct.unpack(">h", answer[8:10])[0])
        writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._upstream)
        down = asyncio.create_task(self._copy(up_reader, writer))
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                frame = await _frame(reader)
                (api,) = struct.unpack(">h", frame[:2])
                self.seen.append(api)
                if api == self.hold:
                    self.hold, self._held = None, (up_reader, up_writer, frame)
                    down.cancel()
                    writer.transport.abort()
                    return
                up_writer.write(_packed(frame))
                await up_writer.drain()
                if api == self.let_go_at and self._held is not None:
                    self.let_go_at = None
                    await self.release()
        up_writer.close()
        down.cancel()
        writer.close()

    @staticmethod
    async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                writer.write(_packed(await _frame(reader)))
                await writer.drain()
