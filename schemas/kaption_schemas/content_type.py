"""Reads and writes the ``content-type`` of audio.

``audio/pcm;rate=16000;channels=1;encoding=s16le`` or a container's name.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final as Const

from kaption_schemas.audio import MAX_CHANNELS, RATES
from kaption_schemas.errors import RefusedError
from kaption_schemas.reasons import Reason

#: Bytes a sample of each raw encoding.
WIDTH: Const = {"s16le": 2, "mulaw": 1, "alaw": 1}
CONTAINERS: Const = {"audio/flac": "flac", "audio/ogg": "ogg", "audio/wav": "wav"}
RAW: Const = "audio/pcm"
_NUMBER: Const = re.compile(r"[0-9]{1,6}")
#: ``; name=value`` of a media type; tokens and quoted values without escapes (RFC 9110, 8.3), which is all a format needs.
_PARAMETER: Const = re.compile(r'\s*;\s*([A-Za-z]+)=(?:"([^"\\]*)"|([A-Za-z0-9._+-]+))')
_KIND: Const = re.compile(r"\s*(audio/[a-z0-9.+-]+)", re.IGNORECASE)


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

    @property
    def stride(self) -> int:
        """Bytes of one sample of all channels. Raw encodings only."""
        return WIDTH[self.encoding] * self.channels


def pcm_type(rate: int, channels: int, encoding: str = "s16le") -> str:
    """``content-type`` of raw samples: ``audio/pcm;rate=16000;channels=1;encoding=s16le``."""
    return f"{RAW};rate={rate};channels={channels};encoding={encoding}"


@lru_cache(maxsize=256)  # each frame of a run states the same
def parse_format(content_type: str) -> FrameFormat:
    """Read ``audio/pcm;rate=16000;channels=1;encoding=s16le``. Raises ``RefusedError``."""
    if not content_type:
        raise RefusedError(Reason.MISSING_FORMAT)
    kind, given = _media_type(content_type)
    rate, channels = given.get("rate") or "16000", given.get("channels") or "1"
    if kind == RAW and not (given.get("rate") and given.get("encoding")):
        raise RefusedError(Reason.MISSING_FORMAT)
    encoding = given["encoding"] if kind == RAW else CONTAINERS.get(kind, "")
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
