"""Defines a piece of decoded audio: samples, and the hole before them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Piece:
    """PCM s16le, interleaved, and the number of samples per channel that are missing before it."""

    hole: int
    pcm: bytes
