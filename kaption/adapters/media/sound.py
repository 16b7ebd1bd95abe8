"""Decodes one track of a media file to PCM s16le on the file's time line, for every container and codec.

It owns the calls of the media libraries. The caller knows where the bytes come from and what they may cost: a decoding
child (``file_child``) for untrusted files, this process for a file of the user's own (``local``).
"""

import math
import os
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, cast
from typing import Final as Const

import av

from kaption.adapters.media.container_parts import Part, parts
from kaption.adapters.media.containers import MAX_RATE, MIN_RATE, find
from kaption.adapters.media.mpeg_audio import counted
from kaption.adapters.media.pieces import Piece
from kaption_schemas.audio import MAX_CHANNELS, RATES
from kaption_schemas.errors import RefusedError
from kaption_schemas.reasons import Reason

MAX_SOURCE_CHANNELS: Const = 16
#: Nested opens (playlists, references to other files) fail on a protocol that does not exist.
_NO_PROTOCOL: Const = "none"
_CODECS: Const = frozenset({
    "aac", "aac_latm", "ac3", "adpcm_ima_qt", "adpcm_ima_wav", "adpcm_ms", "adpcm_yamaha", "alac", "amrnb", "amrwb", "eac3",
    "flac", "g722", "g726", "g726le", "gsm", "gsm_ms", "libgsm", "libgsm_ms", "libopus", "libspeex", "libvorbis", "mp1",
    "mp1float", "mp2", "mp2float", "mp3", "mp3float", "opus", "pcm_alaw", "pcm_f32be", "pcm_f32le", "pcm_f64be", "pcm_f64le",
    "pcm_mulaw", "pcm_s16be", "pcm_s16le", "pcm_s24be", "pcm_s24le", "pcm_s32be", "pcm_s32le", "pcm_s8", "pcm_u8", "speex",
    "vorbis", "wavpack", "wmapro", "wmav1", "wmav2",
})  # fmt: skip
_OPTIONS: Const = {
    "protocol_whitelist": _NO_PROTOCOL,
    "codec_whitelist": ",".join(sorted(_CODECS)),
    "enable_drefs": "0",
}
#: Seconds that a time stamp must be ahead to leave a hole, so that times stay true.
_HOLE_SECONDS: Const = 0.1
#: Most seconds of all holes of a file, plus a second for each ``_BYTES_A_HOLE_SECOND`` of it: a real recorder leaves silence out, but
#: none packs hours of it into a few kilobytes.
_HOLES_SECONDS: Const = 600.0
_BYTES_A_HOLE_SECOND: Const = 100
#: Containers whose clock may restart within a file, as in a broadcast: a longer jump in seconds, ahead or back, is no hole.
_JUMPY: Const = frozenset({"mpegts", "mpeg", "flv"})
_JUMP_SECONDS: Const = 600.0
_BACK_SECONDS: Const = 1.0
#: Seconds by which a length may be off: some writers count an encoder's delay and padding, others do not.
_UNEVEN_SECONDS: Const = 0.1
#: Array type codes of codecs with float samples; only these can be NaN or infinite.
_FLOATS: Const = {"pcm_f32be": "f", "pcm_f32le": "f", "pcm_f64be": "d", "pcm_f64le": "d"}
#: Level above which a track is not silent: -60 dB of full scale.
_SOUNDS: Const = 33
_MOST_TRACKS: Const = 32
#: Most packets that are read to find where tracks begin, if the container's header does not say.
_FIRST_PACKETS: Const = 2000
#: A file without a sample is empty up to this size; a larger one is unreadable.
_HEADER_BYTES: Const = 4096


@dataclass(frozen=True, slots=True)
class _Place:
    """The place of the sound in a part: its stream number, and the second at which the part begins by its own clock."""

    stream: int
    origin: float


def nearest_rate(rate: int) -> int:
    """Return the rate to decode to: ``rate`` if runs may have it, otherwise the nearest one that they may."""
    return min(RATES, key=lambda allowed: abs(allowed - rate))


class _Source:
    """A part of the file for PyAV, which drops an error of ``read`` and takes it for the end; ``starved`` records it."""

    def __init__(self, file: BinaryIO, part: Part) -> None:
        self._file, self._part = file, part
        self.position = part.start
        self.starved = False

    def read(self, size: int) -> bytes:
        try:
            self._file.seek(self.position)
            data = self._file.read(max(0, min(size, self._part.end - self.position)))
        except MemoryError:
            self.starved = True
            raise
        self.position += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: self._part.start, os.SEEK_CUR: self.position, os.SEEK_END: self._part.end}[whence]
        self.position = max(self._part.start, base + offset)
        return self.tell()

    def tell(self) -> int:
        return self.position - self._part.start


class Sound:
    """One file's sound. ``pieces`` has ``rate`` and ``channels`` (one or two); ``seconds`` is None if the header has none.

    The constructor and ``pieces`` raise ``RefusedError``.
    """

    def __init__(self, file: BinaryIO, track: int | None = None) -> None:
        self._file, self._track = file, track
        self._size = file.seek(0, os.SEEK_END)
        found = find(file, self._size)
        if found is None:
            raise RefusedError(Reason.NOT_MEDIA, "its first bytes are those of no container that is read here")
        self.kind = found.kind
        self.samples = 0
        self._source = _Source(file, Part(0, self._size))
        self._container: Any = None
        self._resampler: av.AudioResampler | None = None
        self._format: tuple[str, str, int] | None = None
        self._bad = self._good = 0
        self._starved = False
        self._holes = _HOLES_SECONDS + self._size / _BYTES_A_HOLE_SECOND
        self.rate = self.channels = self.source_channels = 0
        self.seconds: float | None = None
        self._parts: list[Part] = self._guarded(lambda: parts(file, found, self._size))
        self._place: _Place = self._guarded(self._first)

    def close(self) -> None:
        """Release the libraries' resources; the file stays open."""
        if self._container is not None:
            self._container.close()
            self._container = None

    def pieces(self) -> Iterator[Piece]:
        """Yield the sound, in order, once. Raises ``RefusedError``, also at the end if it was not the whole."""
        made = self._all()
        while (piece := self._guarded(lambda: next(made, None))) is not None:
            yield piece
        if self.samples == 0:
            if self._bad or self.seconds or self._size > _HEADER_BYTES:
                raise RefusedError(Reason.NOT_MEDIA, f"{self.kind}: none of its sound can be decoded")
            raise RefusedError(Reason.NO_AUDIO, f"{self.kind}: no sample")
        if self._bad > self._good:
            packets = self._bad + self._good
            raise RefusedError(Reason.NOT_MEDIA, f"{self.kind}: {self._bad} of {packets} packets can't be decoded")

    # -- which track, from when on ---------------------------------------------------------------------------------

    def _first(self) -> _Place:
        """Open the first part and read the format of its sound."""
        place = self._enter(self._parts[0])
        stream = self._container.streams[place.stream]
        codec = stream.codec_context
        if not codec.rate or not codec.channels:
            raise RefusedError(Reason.NOT_MEDIA, f"{self.kind}: the format of its sound ({codec.name}) can't be read")
        self._fits(codec.rate, codec.channels)
        self.rate, self.source_channels = nearest_rate(codec.rate), codec.channels
        self.channels = min(self.source_channels, MAX_CHANNELS)
        if len(self._parts) == 1:
            self.seconds = _declared(stream) or None
        return place

    def _enter(self, part: Part) -> _Place:
        """Open ``part`` and find the sound in it."""
        self._open(part)
        choice = self._candidates(self._container)
        origin, moved = self._begins(self._container)
        if len(choice) > 1:
            if moved:
                self._open(part)
            choice, moved = [self._first_that_sounds(self._container, choice)], True
        if moved:
            self._open(part)
        return _Place(choice[0], origin)

    def _candidates(self, container: Any) -> list[int]:
        """Return the candidate tracks, the likeliest first: the requested one, else those marked as default, else all."""
        tracks = [(stream.index, stream.codec_context, stream.disposition) for stream in container.streams.audio]
        if not tracks:
            raise RefusedError(Reason.NO_AUDIO, f"{self.kind}: no sound track among {len(container.streams)}")
        if self._track is not None:
            if self._track >= len(tracks):
                raise RefusedError(
                    Reason.NO_AUDIO, f"{self.kind}: track {self._track} of {len(tracks)}, counted from 0"
                )
            tracks = [tracks[self._track]]
        known = [track for track in tracks if track[1] is not None and track[1].name in _CODECS][:_MOST_TRACKS]
        if not known:
            names = ", ".join(sorted({"unknown" if codec is None else codec.name for _, codec, _ in tracks}))
            raise RefusedError(Reason.UNSUPPORTED_FORMAT, f"{self.kind}: codec {names}")
        default = av.stream.Disposition.default
        return [index for index, _, _ in sorted(known, key=lambda track: not track[2] & default)]

    def _begins(self, container: Any) -> tuple[float, bool]:
        """Return the second at which the first of all tracks begins, and whether packets were read to find out.

        Only a video decoder knows where the picture begins, and none is used; its first packet says it.
        """
        origin = math.inf if container.start_time is None else container.start_time / av.time_base
        cover = av.stream.Disposition.attached_pic
        pictures = {stream.index for stream in container.streams.video if not stream.disposition & cover}
        unknown = pictures | {stream.index for stream in container.streams.audio if stream.start_time is None}
        moved = bool(unknown)
        for number, packet in enumerate(container.demux() if unknown else ()):
            if packet.pts is not None and packet.stream.index in unknown:
                origin = min(origin, float(packet.pts * packet.time_base))
                unknown.discard(packet.stream.index)
            if not unknown or number == _FIRST_PACKETS:
                break
        return origin if math.isfinite(origin) else 0.0, moved

    def _first_that_sounds(self, container: Any, choice: Sequence[int]) -> int:
        """Return the first of ``choice`` that is not silent throughout; the first of all if each is."""
        silent, counts = dict[int, _Ear](), (self._bad, self._good)
        for index in choice:
            container.streams[index].codec_context.thread_count = 1
            silent[index] = _Ear()
        for packet in container.demux([container.streams[index] for index in choice]):
            ear = silent.get(packet.stream.index)
            if ear is not None and any(map(ear.hears, self._decode(packet))):
                del silent[packet.stream.index]
                if packet.stream.index == choice[0]:
                    break
        self._bad, self._good = counts
        return next((index for index in choice if index not in silent), choice[0])

    # -- decoding --------------------------------------------------------------------------------------------------

    def _all(self) -> Iterator[Piece]:
        for number, part in enumerate(self._parts):
            if number:
                self._place = self._enter(part)
            yield from self._part(self._container.streams[self._place.stream], part)

    def _decode(self, packet: Any) -> list[Any]:
        """Decode the frames of one packet, none if it is broken: time stamps place the following ones."""
        try:
            frames: list[Any] = packet.decode()
        except av.error.MemoryError:
            raise
        except av.error.FFmpegError:
            self._bad += 1
            return []
        self._good += bool(frames)
        return frames

    def _part(self, stream: Any, part: Part) -> Iterator[Piece]:
        stream.codec_context.thread_count = 1
        first, origin = self.samples, self._place.origin
        floats = _FLOATS.get(stream.codec_context.name)
        for packet in self._container.demux(stream):
            for frame in self._decode(packet):
                if frame.time is not None:
                    ahead = frame.time - origin - (self.samples - first) / self.rate
                    if self.kind in _JUMPY and not -_BACK_SECONDS <= ahead <= _JUMP_SECONDS:
                        origin, ahead = origin + ahead, 0.0
                    if ahead > _HOLE_SECONDS:
                        yield from self._hole(ahead)
                if floats:
                    _silence_what_is_no_number(frame, floats)
                yield from self._take(frame)
        yield from self._flush()
        self._check(stream, part, (self.samples - first) / self.rate)

    def _hole(self, seconds: float) -> Iterator[Piece]:
        yield from self._flush()
        self._holes -= seconds
        if self._holes < 0:
            at = round(self.samples / self.rate)
            raise RefusedError(Reason.TOO_SPARSE, f"{self.kind}: {round(seconds)} s without sound after {at} s")
        missing = round(seconds * self.rate)
        self.samples += missing
        yield Piece(missing, b"")

    def _check(self, stream: Any, part: Part, seconds: float) -> None:
        """Check that a part is as long as it declares, if that is exact."""
        declared, slack = 0.0, _UNEVEN_SECONDS
        if self.kind == "flac":
            declared = _declared(stream)
        elif self.kind == "mp3" and (count := counted(self._file, part.start)) is not None:
            declared, slack = count.seconds, slack + count.slack
        elif self.kind == "mov":
            # Its last sample may last long, and an edit may go past the end; half of the sound is not missing of itself.
            declared = _declared(stream) / 2
        if self.samples and seconds < declared - slack:
            raise RefusedError(Reason.TRUNCATED, f"{self.kind}: {seconds:.1f} s of {_declared(stream) or declared:.1f}")

    def _take(self, frame: av.AudioFrame) -> Iterator[Piece]:
        form = (frame.format.name, frame.layout.name, frame.sample_rate)
        if form != self._format:
            self._fits(frame.sample_rate, frame.layout.nb_channels)
            yield from self._flush()
            self._format = form
            layout = "mono" if self.channels == 1 else "stereo"
            self._resampler = av.AudioResampler(format="s16", layout=layout, rate=self.rate)
        frame.pts = None
        yield from self._write(frame)

    def _flush(self) -> Iterator[Piece]:
        if self._resampler is not None:
            yield from self._write(None)
            self._resampler = self._format = None

    def _write(self, frame: av.AudioFrame | None) -> Iterator[Piece]:
        assert self._resampler is not None  # noqa: S101  # made before the first frame is taken
        for done in self._resampler.resample(frame):
            self.samples += done.samples
            # Packed samples, in the order of the machine, which is little-endian; the plane may be longer.
            yield Piece(0, bytes(memoryview(done.planes[0])[: 2 * done.samples * self.channels]))

    # -- the library's faults --------------------------------------------------------------------------------------

    def _fits(self, rate: int, channels: int) -> None:
        if not MIN_RATE <= rate <= MAX_RATE or not 0 < channels <= MAX_SOURCE_CHANNELS:
            raise RefusedError(Reason.UNSUPPORTED_FORMAT, f"{self.kind}: {channels} channels of {rate} Hz")

    def _open(self, part: Part) -> None:
        self.close()
        self._starved |= self._source.starved
        self._source = _Source(self._file, part)
        options = _OPTIONS | ({"ignore_length": "1"} if part.to_end else {})
        self._container = av.open(
            cast("Any", self._source), format=self.kind, options=options, metadata_errors="replace"
        )

    def _guarded(self, work: Any) -> Any:
        """Do ``work``, and turn a library's errors into ``RefusedError``."""
        try:
            done = work()
        except RefusedError:
            raise
        except (MemoryError, av.error.MemoryError):
            raise RefusedError(Reason.DECODE_LIMIT, self._where("no memory")) from None
        except Exception as error:  # noqa: BLE001  # whatever a library makes of a hostile file
            reason = Reason.DECODE_LIMIT if self._lacked_memory else Reason.NOT_MEDIA
            raise RefusedError(reason, self._where(type(error).__name__)) from None
        if self._lacked_memory:
            raise RefusedError(Reason.DECODE_LIMIT, self._where("no memory"))
        return done

    @property
    def _lacked_memory(self) -> bool:
        return self._starved or self._source.starved

    def _where(self, what: str) -> str:
        place = f"{self.kind}: {what} at byte {self._source.position} of {self._size}"
        return f"{place}, after {self.samples / self.rate:.1f} s" if self.samples else place


class _Ear:
    """Checks whether frames of one track are not silent."""

    def __init__(self) -> None:
        self._resampler = av.AudioResampler(format="s16", layout="stereo")
        self._format: tuple[str, str, int] | None = None

    def hears(self, frame: Any) -> bool:
        form = (frame.format.name, frame.layout.name, frame.sample_rate)
        if form != self._format:
            self._format = form
            self._resampler = av.AudioResampler(format="s16", layout="stereo")
        return any(_is_loud(bytes(done.planes[0])[: 4 * done.samples]) for done in self._resampler.resample(frame))


def _is_loud(pcm: bytes) -> bool:
    if not pcm.strip(b"\0"):
        return False
    samples = memoryview(pcm).cast("h")
    return max(samples) > _SOUNDS or min(samples) < -_SOUNDS


def _silence_what_is_no_number(frame: Any, code: str) -> None:
    """Replace NaN and infinities of a packed frame by 0: the conversion to integers would make them full scale."""
    plane = frame.planes[0]
    values = memoryview(plane).cast("B").cast("f" if code == "f" else "d")
    if not math.isfinite(sum(values[: frame.samples * frame.layout.nb_channels])):
        finite = array(code, (value if math.isfinite(value) else 0.0 for value in values))
        plane.update(finite.tobytes())


def _declared(stream: Any) -> float:
    """Return the track's length in seconds by the container; 0 if it does not say."""
    return float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
