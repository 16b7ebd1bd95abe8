"""What a decoding child does (``media_forks`` makes it): one hostile file in, PCM s16le out, then it ends.

PCM goes to one descriptor; a second gets JSON lines: ``{"rate", "channels"}`` before the first sample, and at the end
``{"samples"}`` or ``{"reason"}``. No last line: it was killed by a limit.
HAZARDS, Whisper 5, is why this is a process: a demuxer allocates and decodes while it probes.
"""

import json
import os
from typing import BinaryIO, NoReturn, cast
from typing import Final as Const

import av

from kaption.adapters.containers import HEAD_BYTES, ends_early, sniff, xing_frames
from kaption.adapters.media_job import Job
from kaption_schemas.audio import MAX_CHANNELS, RATES
from kaption_schemas.reasons import Reason

MAX_RATE: Const = 192_000
MAX_SOURCE_CHANNELS: Const = 16
#: Nested opens (playlists, references to other files) meet a protocol that does not exist.
_NO_PROTOCOL: Const = "none"
_CODECS: Const = frozenset(
    [
        "aac",
        "aac_latm",
        "ac3",
        "adpcm_g722",
        "adpcm_ima_qt",
        "adpcm_ima_wav",
        "adpcm_ms",
        "adpcm_yamaha",
        "alac",
        "amrnb",
        "amrwb",
        "eac3",
        "flac",
        "gsm",
        "gsm_ms",
        "libgsm",
        "libgsm_ms",
        "libopus",
        "libspeex",
        "libvorbis",
        "mp1",
        "mp1float",
        "mp2",
        "mp2float",
        "mp3",
        "mp3float",
        "opus",
        "pcm_alaw",
        "pcm_f32be",
        "pcm_f32le",
        "pcm_f64be",
        "pcm_f64le",
        "pcm_mulaw",
        "pcm_s16be",
        "pcm_s16le",
        "pcm_s24be",
        "pcm_s24le",
        "pcm_s32be",
        "pcm_s32le",
        "pcm_s8",
        "pcm_u8",
        "speex",
        "vorbis",
        "wavpack",
        "wmapro",
        "wmav1",
        "wmav2",
    ]
)
_OPTIONS: Const = {
    "protocol_whitelist": _NO_PROTOCOL,
    "codec_whitelist": ",".join(sorted(_CODECS)),
    "enable_drefs": "0",
}
#: Time stamps that are further ahead than this leave a hole, filled with silence so that times stay true.
_HOLE_SECONDS: Const = 0.1
_SILENCE_SAMPLES: Const = 1 << 16


class MediaError(Exception):
    """Why the file can't be transcribed."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.meaning)
        self.reason = reason


def nearest_rate(rate: int) -> int:
    """The rate to decode to: ``rate`` itself where runs may have it, else the nearest that they may."""
    return min(RATES, key=lambda allowed: abs(allowed - rate))


class _Source:
    """The file as PyAV reads it. PyAV drops an error of ``read`` and goes on as at the end: ``starved`` remembers."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.starved = False

    def read(self, size: int) -> bytes:
        try:
            return self._file.read(size)
        except MemoryError:
            self.starved = True
            raise

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


class Decoder:
    """Decodes one file to ``out``; ``status`` gets a line of JSON at a time."""

    def __init__(self, file: BinaryIO, out: BinaryIO, status: BinaryIO, job: Job) -> None:
        self._file, self._out, self._status, self._job = file, out, status, job
        self._rate = self._channels = 0
        self.samples = 0
        self._resampler: av.AudioResampler | None = None
        self._source: tuple[str, str, int] | None = None
        self._bad = self._good = 0

    def run(self) -> None:
        """Decode the whole file. Raises ``MediaError``."""
        size = self._file.seek(0, os.SEEK_END)
        self._file.seek(0)
        kind = sniff(self._file.read(HEAD_BYTES))
        if kind is None:
            raise MediaError(Reason.NOT_MEDIA)
        if ends_early(self._file, kind, size):
            raise MediaError(Reason.TRUNCATED)
        frames = xing_frames(self._file) if kind == "mp3" else None
        self._file.seek(0)
        source = _Source(self._file)
        try:
            with av.open(source, format=kind, options=_OPTIONS) as container:
                declared = self._decode(cast("av.container.InputContainer", container), kind)
        except av.error.MemoryError:
            raise MediaError(Reason.DECODE_LIMIT) from None
        except av.error.FFmpegError:
            raise MediaError(Reason.DECODE_LIMIT if source.starved else Reason.NOT_MEDIA) from None
        if source.starved:
            raise MediaError(Reason.DECODE_LIMIT)
        if self.samples == 0:
            raise MediaError(Reason.NOT_MEDIA if self._bad else Reason.NO_AUDIO)
        if self._bad > self._good:
            raise MediaError(Reason.NOT_MEDIA)
        exact = kind == "flac" or frames is not None
        # A tenth of a second: encoders' delay and padding are counted by some and not by others.
        if exact and declared and self.samples < (declared - 0.1) * self._rate:
            raise MediaError(Reason.TRUNCATED)

    def _decode(self, container: "av.container.InputContainer", kind: str) -> float:
        """Decode the first audio track; returns the seconds that the container says it has, 0 if it does not."""
        if not container.streams.audio:
            raise MediaError(Reason.NO_AUDIO)
        stream = container.streams.audio[0]
        codec = stream.codec_context
        if codec is None or codec.name not in _CODECS:
            raise MediaError(Reason.NOT_MEDIA)
        codec.thread_count = 1
        self._begin(codec.rate, codec.channels)
        declared = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
        if kind == "flac" and declared > self._job.audio_seconds:
            raise MediaError(Reason.TOO_LONG)
        origin = (container.start_time or 0) / av.time_base
        for packet in container.demux(stream):
            try:
                decoded = packet.decode()
            except av.error.InvalidDataError:
                self._bad += 1  # one broken packet; what follows is placed by its time stamp
                continue
            self._good += bool(decoded)
            for frame in decoded:
                self._take(frame, origin)
        self._flush()
        return declared

    def _begin(self, rate: int, channels: int) -> None:
        if not 0 < rate <= MAX_RATE or not 0 < channels <= MAX_SOURCE_CHANNELS:
            raise MediaError(Reason.UNSUPPORTED_FORMAT)
        if not self._job.mix and channels > MAX_CHANNELS:
            raise MediaError(Reason.UNSUPPORTED_FORMAT)
        self._rate = nearest_rate(rate)
        self._channels = 1 if self._job.mix else channels
        self._say({"rate": self._rate, "channels": self._channels})

    def _take(self, frame: "av.AudioFrame", origin: float) -> None:
        source = (frame.format.name, frame.layout.name, frame.sample_rate)
        if source != self._source:
            if not 0 < frame.sample_rate <= MAX_RATE or frame.layout.nb_channels > MAX_SOURCE_CHANNELS:
                raise MediaError(Reason.UNSUPPORTED_FORMAT)
            self._flush()
            self._source = source
            layout = "mono" if self._channels == 1 else "stereo"
            self._resampler = av.AudioResampler(format="s16", layout=layout, rate=self._rate)
        if frame.time is not None:
            hole = round((frame.time - origin) * self._rate) - self.samples
            if hole > _HOLE_SECONDS * self._rate:
                self._silence(hole)
        frame.pts = None
        self._write(frame)

    def _silence(self, samples: int) -> None:
        """Fill a hole; one that reaches past the limit is refused before it is written."""
        self._bound(samples)
        while samples > 0:
            piece = min(samples, _SILENCE_SAMPLES)
            self._emit(bytes(2 * piece * self._channels))
            samples -= piece

    def _flush(self) -> None:
        if self._resampler is not None:
            self._write(None)

    def _write(self, frame: "av.AudioFrame | None") -> None:
        assert self._resampler is not None  # noqa: S101  # made before the first frame is taken
        for done in self._resampler.resample(frame):
            # Packed samples, in the order of the machine, which is little-endian; the plane may be longer.
            self._emit(memoryview(done.planes[0])[: 2 * done.samples * self._channels])

    def _emit(self, pcm: bytes | memoryview) -> None:
        count = len(pcm) // (2 * self._channels)
        self._bound(count)
        self._out.write(pcm)
        self.samples += count

    def _bound(self, more: int) -> None:
        if self.samples + more > self._job.audio_seconds * self._rate:
            raise MediaError(Reason.TOO_LONG)

    def _say(self, line: dict[str, object]) -> None:
        self._status.write(json.dumps(line).encode() + b"\n")
        self._status.flush()


def decode(file: BinaryIO, out: BinaryIO, status: BinaryIO, job: Job) -> NoReturn:
    """Decode ``file`` and end the process, which is confined; its exit status is 0 whenever the last line of status was written."""
    decoder = Decoder(file, out, status, job)
    try:
        decoder.run()
        # Written whole before the last line: what is buffered when a limit kills must not look like an end.
        out.flush()
        last: dict[str, object] = {"samples": decoder.samples}
    except MediaError as error:
        last = {"reason": error.reason.value}
    except MemoryError:
        last = {"reason": Reason.DECODE_LIMIT.value}
    status.write(json.dumps(last).encode() + b"\n")
    status.flush()
    os._exit(0)  # nothing of a library's tidying up after a hostile file
