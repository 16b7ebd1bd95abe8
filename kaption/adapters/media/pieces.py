"""What a sound is given out in: samples, and holes before them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Piece:
    """Some PCM s16le, interleaved, and the samples (a channel) that are missing before it."""

    hole: int
    pcm: bytes
