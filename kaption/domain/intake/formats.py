"""Raw samples: G.711 to linear (ITU-T G.711), muted ranges, and what a ``content-type`` says."""

import re
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from kaption.domain.intake.events import RefusedError
from kaption_schemas.audio import MAX_CHANNELS, RATES
from kaption_schemas.reasons import Reason

WIDTH = {"s16le": 2, "mulaw": 1, "alaw": 1}
CONTAINERS = {"audio/flac": "flac", "audio/ogg": "ogg", "audio/wav": "wav"}
_NUMBER = re.compile(r"[0-9]{1,6}")
#: ``; name=value`` of a media type; tokens and quoted values without escapes (RFC 9110, 8.3), which is all a format needs.
_PARAMETER = re.compile(r'\s*;\s*([A-Za-z]+)=(?:"([^"\\]*)"|([A-Za-z0-9._+-]+))')
_KIND = re.compile(r"\s*(audio/[a-z0-9.+-]+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class FrameFormat:
    """Format of one frame; rate and channels of a container are what its header must say too."""

    encoding: str
    rate: int
    channels: int

    @property
    def is_raw(self) -> bool:
        """Whether the body is samples without a container."""
        return self.encoding in WIDTH


@lru_cache(maxsize=256)  # each frame of a run states the same
def parse_format(content_type: str) -> FrameFormat:
    """Read ``audio/pcm;rate=16000;channels=1;encoding=s16le``. Raises ``RefusedError``."""
    if not content_type:
        raise RefusedError(Reason.MISSING_FORMAT)
    kind, given = _media_type(content_type)
    rate, channels = given.get("rate") or "16000", given.get("channels") or "1"
    if kind == "audio/pcm" and not (given.get("rate") and given.get("encoding")):
        raise RefusedError(Reason.MISSING_FORMAT)
    encoding = given["encoding"] if kind == "audio/pcm" else CONTAINERS.get(kind, "")
    numbers = _NUMBER.fullmatch(rate) and _NUMBER.fullmatch(channels)
    known = encoding in WIDTH or encoding in CONTAINERS.values()
    if not (numbers and known and int(rate) in RATES and 1 <= int(channels) <= MAX_CHANNELS):
        raise RefusedError(Reason.UNSUPPORTED_FORMAT)
    return FrameFormat(encoding, int(rate), int(channels))


def _media_type(text: str) -> tuple[str, dict[str, str]]:
    """A media type and its parameters. Raises ``RefusedError`` for what is none.

    Not ``email.message``: some RFC 2231 parameters make it raise TypeError, and a header must not end an agent.
    """
    kind = _KIND.match(text)
    if not kind:
        raise RefusedError(Reason.UNSUPPORTED_FORMAT)
    given, at = dict[str, str](), kind.end()
    while part := _PARAMETER.match(text, at):
        name, at = part[1].lower(), part.end()
        if name in given:
            raise RefusedError(Reason.UNSUPPORTED_FORMAT)
        given[name] = part[3] if part[2] is None else part[2]
    if text[at:].strip(" \t;"):
        raise RefusedError(Reason.UNSUPPORTED_FORMAT)
    return kind[1].lower(), given


def _mulaw() -> np.ndarray[tuple[int], np.dtype[np.int16]]:
    code = ~np.arange(256) & 0xFF
    magnitude = (((code & 0x0F) << 3) + 0x84 << ((code & 0x70) >> 4)) - 0x84
    return np.where(code & 0x80, -magnitude, magnitude).astype(np.int16)


def _alaw() -> np.ndarray[tuple[int], np.dtype[np.int16]]:
    code = np.arange(256) ^ 0x55
    exponent, mantissa = (code & 0x70) >> 4, (code & 0x0F) << 4
    magnitude = np.where(exponent == 0, mantissa + 8, (mantissa + 0x108) << np.maximum(exponent - 1, 0))
    return np.where(code & 0x80, magnitude, -magnitude).astype(np.int16)


_TABLES = {"mulaw": _mulaw(), "alaw": _alaw()}


def to_s16(body: bytes, encoding: str) -> bytes:
    """Raw samples of ``encoding`` as s16le."""
    return body if encoding == "s16le" else _TABLES[encoding][np.frombuffer(body, np.uint8)].astype("<i2").tobytes()


def silence(body: bytes, channels: int, first: int, ranges: tuple[tuple[int, int], ...]) -> bytes:
    """PCM s16le that begins at sample ``first``, with samples of ``ranges`` set to zero."""
    samples = np.frombuffer(body, "<i2").reshape(-1, channels).copy()
    for start, end in ranges:
        samples[max(0, start - first) : max(0, end - first)] = 0
    return samples.tobytes()
