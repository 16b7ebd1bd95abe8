"""Publishes live streams as frames, and objects in the store by their key. The contract is plain Kafka (docs/kafka.md)."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Sequence
from contextlib import nullcontext
from types import TracebackType
from typing import Any, Literal, Self, TypedDict, Unpack
from typing import Final as Const

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from ulid import ULID

from kaption.adapters.kafka.clients import security
from kaption.adapters.kafka.presence import require_topics
from kaption.adapters.settings import Settings
from kaption.adapters.telemetry import Telemetry, inject
from kaption_schemas.codec import Body, Event, Sound, encode_published
from kaption_schemas.content_type import FrameFormat
from kaption_schemas.errors import PublishError
from kaption_schemas.records import AudioFormat, MediaObject, RunOptions, StreamEnded, StreamStarted
from kaption_schemas.topics import (
    DEFAULT_TENANT,
    STREAM_PATTERN,
    TENANT_PATTERN,
    Type,
)

Encoding = Literal["s16le", "mulaw", "alaw"]

FRAME_MS: Const = 100
_SHORTEST_MS: Const = 20
#: Unacknowledged frames at once. Beyond it, ``send`` waits for the oldest one: this is the back pressure.
_IN_FLIGHT: Const = 64
#: The bytes of a silent sample, by encoding.
_SILENCE: Const[dict[str, bytes]] = {"s16le": b"\0\0", "mulaw": b"\xff", "alaw": b"\xd5"}


class RunFields(TypedDict, total=False):
    """Options of a run by name; ``RunOptions`` has all of them.

    ``language`` is a code, a tag such as ``en-US``, or ``auto``. ``redaction`` lists the entities to mask, by Presidio's names
    (unset or None: the deployment's default; empty: nothing). ``vocabulary`` holds names and terms to expect. ``metadata``
    is returned in ``StreamCompleted``.
    """

    language: str
    redaction: Sequence[str] | None
    vocabulary: Sequence[str]
    metadata: dict[str, str]


class ObjectFields(RunFields, total=False):
    """Options of an object's run. ``track``: the index of its audio track, from 0 (None: the default track that has sound)."""

    track: int | None


class StreamWriter:
    """One run of a stream that is being published; ``Publisher.stream`` makes it. ``run`` is its id, a ULID."""

    def __init__(self, publisher: "Publisher", stream: str, format: AudioFormat, options: RunOptions) -> None:
        self.stream = stream
        self.run = str(ULID())
        self._publisher = publisher
        self._format = format
        self._options = options
        self._silence = _SILENCE[format.encoding]
        self._what = FrameFormat(format.encoding, format.rate, format.channels)
        self._stride = self._what.stride
        self._frame = format.rate * FRAME_MS // 1000 * self._stride
        self._buffer = bytearray()
        self._sequence = 0
        self._sample = 0

    async def __aenter__(self) -> Self:
        """Publish ``started``.

        Raises:
            PublishError: The brokers did not take it.
            LookupError: The tenant has no topic for streams; the message says what to do.
        """
        started = StreamStarted(format=self._format, options=self._options, wall_time_ms=_now_ms())
        await self._send(Type.STARTED, started)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Publish the remaining samples and ``ended``, and wait until the brokers have them. An error ends the run as ``aborted``."""
        if isinstance(error, PublishError):
            return
        await self.flush()
        ended = StreamEnded(last_sequence=self._sequence - 1, reason="ended" if error is None else "aborted")
        await self._send(Type.ENDED, ended)
        await self._publisher.flush()

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """Publish samples: any number of bytes, which are split into frames of 100 ms.

        Args:
            data: Interleaved samples in the run's format.

        Raises:
            PublishError: The brokers did not take a frame.
        """
        self._buffer += data
        while len(self._buffer) >= self._frame:
            await self._publish(self._frame)

    async def flush(self) -> None:
        """Publish the samples that do not fill a frame. Less than 20 ms are padded with silence."""
        if not self._buffer:
            return
        shortest = self._format.rate * _SHORTEST_MS // 1000 * self._stride
        size = max(shortest, -(-len(self._buffer) // self._stride) * self._stride)
        self._buffer += self._silence * (size - len(self._buffer))
        await self._publish(size)
        self._buffer.clear()

    async def skip(self, samples: int) -> None:
        """Leave out ``samples`` of silence on each channel: the sample clock advances, and nothing is sent."""
        end = self._sample + -(-len(self._buffer) // self._stride)
        await self.flush()
        # The padding of the last frame belongs to the left-out silence. Otherwise each hole would shift the audio after it.
        self._sample = max(self._sample, end + samples)

    async def _publish(self, size: int) -> None:
        frame = bytes(self._buffer[:size])
        del self._buffer[:size]
        number, sample = self._sequence, self._sample
        self._sequence += 1
        self._sample += size // self._stride
        await self._send(Type.FRAME, Sound(frame, self._what), number, sample)

    async def _send(self, kind: Type, body: Body, number: int = -1, sample: int = 0) -> None:
        await self._publisher._send(kind, self.stream, self.run, body, number, sample)


class Publisher:
    """Publishes audio to Kaption.

    ::

    async with Publisher() as publisher, publisher.stream("meeting", rate=16000) as run:
        await run.send(pcm)
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        bootstrap: str | None = None,
        tenant: str = DEFAULT_TENANT,
        telemetry: Telemetry | None = None,
    ) -> None:
        """Nothing is sent before ``async with``.

        Args:
            settings: The connection to the brokers; default: from the environment.
            bootstrap: Brokers to use in place of those of ``settings``.
            tenant: The tenant to publish for.
            telemetry: Makes a span for each record; without it, the current trace context is passed on, if there is one.

        Raises:
            ValueError: ``tenant`` is not a valid tenant name.
        """
        if not TENANT_PATTERN.fullmatch(tenant):
            raise ValueError(f"tenant {tenant!r} must match {TENANT_PATTERN.pattern}")
        base = settings or Settings()
        self._settings = base if bootstrap is None else base.model_copy(update={"kafka": bootstrap})
        self._tenant = tenant
        self._telemetry = telemetry
        self._producer: Any = None
        self._pending: deque[Awaitable[Any]] = deque()
        self._known: set[str] = set()
        self._gave_up = False

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            aiokafka.errors.KafkaError: The brokers can't be reached, or refuse.
        """
        producer = AIOKafkaProducer(**security(self._settings), enable_idempotence=True, linger_ms=5)
        try:
            await producer.start()
        except BaseException:
            await producer.stop()
            raise
        self._producer = producer
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait until everything is delivered, and disconnect."""
        producer, self._producer = self._producer, None
        try:
            if error is None:
                await self.flush()
        finally:
            self._pending.clear()
            if self._gave_up:
                # An idempotent producer never drops a record, so its stop would wait without end.
                await producer._sender.close()
            await producer.stop()

    def stream(
        self,
        name: str,
        *,
        rate: int = 16000,
        channels: int = 1,
        encoding: Encoding = "s16le",
        options: RunOptions | None = None,
        **fields: Unpack[RunFields],
    ) -> StreamWriter:
        """A new run of stream ``name``, to be used with ``async with``; an open run of the stream is superseded.

        Args:
            name: The stream, 1-128 of ``A-Z a-z 0-9 . _ -``.
            rate: Samples per second and channel, one of ``kaption_schemas.audio.RATES``.
            channels: 1 or 2, interleaved.
            encoding: ``s16le``, ``mulaw`` or ``alaw``.
            options: All options of a run, in place of ``fields``.
            fields: The common options by name, see ``RunFields``.

        Raises:
            ValueError: The name or an option is out of range.
        """
        return StreamWriter(
            self,
            _checked(name),
            AudioFormat.model_validate({"encoding": encoding, "rate": rate, "channels": channels}),
            _options(options, fields),
        )

    async def object(
        self,
        bucket: str,
        key: str,
        *,
        stream: str,
        version: str | None = None,
        etag: str | None = None,
        size: int | None = None,
        sha256: str | None = None,
        options: RunOptions | None = None,
        **fields: Unpack[ObjectFields],
    ) -> str:
        """Request the transcript of an object in the tenant's bucket, as a new run of ``stream``. Returns when the brokers have it.

        Args:
            bucket: The tenant's bucket.
            key: The object's key, within the tenant's prefix.
            stream: The stream of the transcript.
            version: With ``etag``, ``size`` (bytes) and ``sha256`` (hex), pins the content to read, as far as given.
            etag: See ``version``.
            size: See ``version``.
            sha256: See ``version``.
            options: All options of a run, in place of ``fields``.
            fields: The common options by name, and ``track``; see ``ObjectFields``.

        Returns:
            The run's id.

        Raises:
            PublishError: The brokers did not take it.
            LookupError: The tenant has no topic for objects.
            ValueError: A field is out of range.
        """
        track = fields.pop("track", None)
        body = MediaObject(
            bucket=bucket, key=key, version=version, etag=etag, size=size, sha256=sha256, track=track,
            options=_options(options, fields),
        )  # fmt: skip
        run = str(ULID())
        await self._send(Type.OBJECT, _checked(stream), run, body)
        await self.flush()
        return run

    async def flush(self) -> None:
        """Wait until the brokers have everything that was sent.

        Raises:
            PublishError: They did not take a record.
        """
        while self._pending:
            await self._oldest()

    async def _send(self, kind: Type, stream: str, run: str, body: Body, number: int = -1, sample: int = 0) -> None:
        if self._producer is None:
            raise PublishError("the publisher is not connected: use it with `async with`")
        now_ms = _now_ms()
        message = encode_published(Event(kind, self._tenant, stream, run, body, now_ms, number, sample), now_ms)
        name = message.topic
        if name not in self._known:
            await require_topics(self._settings, name)
            self._known.add(name)
        with self._telemetry.span("send", name) if self._telemetry else nullcontext():
            try:
                async with asyncio.timeout(self._settings.delivery_seconds):
                    headers = list(inject(message.headers))
                    sent = await self._producer.send(name, message.value, key=message.key, headers=headers)
            except (KafkaError, TimeoutError) as error:
                raise self._given_up(name, error) from error
        self._pending.append(sent)
        if len(self._pending) > _IN_FLIGHT:
            await self._oldest()

    async def _oldest(self) -> None:
        oldest = asyncio.ensure_future(self._pending.popleft())
        try:
            # Not cancelled at the timeout: the producer would fail on its own cancelled future.
            await asyncio.wait_for(asyncio.shield(oldest), self._settings.delivery_seconds)
        except (KafkaError, TimeoutError) as error:
            raise self._given_up("a record", error) from error

    def _given_up(self, what: str, error: KafkaError | TimeoutError) -> PublishError:
        self._pending.clear()
        self._gave_up = True
        if isinstance(error, TimeoutError):
            return PublishError(f"the brokers did not take {what} within {self._settings.delivery_seconds:g} s")
        return PublishError(f"the brokers did not take {what}: {type(error).__name__}")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _checked(stream: str) -> str:
    if not STREAM_PATTERN.fullmatch(stream):
        raise ValueError(f"stream {stream!r} must be 1-128 of A-Z a-z 0-9 . _ -, and not . or .. alone")
    return stream


def _options(options: RunOptions | None, fields: RunFields) -> RunOptions:
    if options is not None and fields:
        raise ValueError("give options, or its fields by name, not both")
    return options or RunOptions.model_validate(fields)
