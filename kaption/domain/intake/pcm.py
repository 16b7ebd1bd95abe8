"""Converts raw samples from G.711 to linear PCM (ITU-T G.711), and silences muted ranges."""

import numpy as np


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
