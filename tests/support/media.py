"""Media files made while the tests run, by PyAV."""

import io
import struct
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, cast

import av
import numpy as np
import numpy.typing as npt

#: Container, codec and a rate that it may have.
CONTAINERS = (
    ("wav", "pcm_s16le", 16_000), ("wav", "pcm_mulaw", 8_000), ("flac", "flac", 44_100), ("ogg", "libopus", 48_000),
    ("mp3", "libmp3lame", 44_100), ("mp4", "aac", 48_000), ("webm", "libopus", 48_000), ("adts", "aac", 44_100),
    ("aiff", "pcm_s16be", 16_000), ("mpegts", "aac", 48_000), ("mov", "alac", 44_100), ("au", "pcm_s16be", 8_000),
    ("caf", "pcm_s16be", 22_050), ("avi", "pcm_s16le", 16_000), ("flv", "aac", 44_100),
)  # fmt: skip


def tone(seconds: float, rate: int = 16_000, channels: int = 1, hertz: float = 440.0) -> npt.NDArray[np.int16]:
    """A sine in the first channel, half as loud in the second; shape (n, channels)."""
    wave = 8000 * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)
    return np.stack([wave / (number + 1) for number in range(channels)], axis=1).astype(np.int16)


def encode(pcm: npt.NDArray[np.int16], rate: int, container: str = "wav", codec: str = "pcm_s16le") -> bytes:
    """``pcm`` of shape (n, channels) as a file."""
    out = io.BytesIO()
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[pcm.shape[1]]
    with av.open(out, "w", format=container) as file:
        stream = cast("av.AudioStream", file.add_stream(codec, rate=rate, layout=layout))
        for at in range(0, len(pcm), rate):
            piece = np.ascontiguousarray(pcm[at : at + rate]).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(piece, format="s16", layout=layout)
            frame.sample_rate, frame.pts = rate, at
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return out.getvalue()


def video(*, sound: bool) -> bytes:
    """Half a second of a grey MP4, with or without a tone."""
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as file:
        picture = file.add_stream("mpeg4", rate=10)
        picture.width, picture.height, picture.pix_fmt = 64, 64, "yuv420p"
        audio = file.add_stream("aac", rate=16_000, layout="mono") if sound else None
        for number in range(5):
            image = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 40 * number, np.uint8), format="rgb24")
            image.pts = number
            file.mux(picture.encode(image))
        file.mux(picture.encode(None))
        if audio is not None:
            frame = av.AudioFrame.from_ndarray(tone(0.5).reshape(1, -1), format="s16", layout="mono")
            frame.sample_rate, frame.pts = 16_000, 0
            file.mux(audio.encode(frame))
            file.mux(audio.encode(None))
    return out.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    """A RIFF chunk."""
    return kind + struct.pack("<I", len(body)) + body + bytes(len(body) & 1)


def riff(
    body: bytes, rate: int = 16_000, *, size: int | None = None, before: bytes = b"", after: bytes = b"", form: bytes = b"RIFF",
    tag: int = 1, width: int = 2, channels: int = 1,
) -> bytes:  # fmt: skip
    """A WAV written by hand: ``size`` is what the header says of ``body``; ``before`` and ``after`` are chunks around it."""
    said = len(body) if size is None else size
    what = chunk(
        b"fmt ", struct.pack("<HHIIHH", tag, channels, rate, rate * width * channels, width * channels, 8 * width)
    )
    inner = b"WAVE" + what + before + b"data" + struct.pack("<I", said & 0xFFFFFFFF) + body + after
    return form + struct.pack("<I", min(len(inner), 0xFFFFFFFF)) + inner


def tag(size: int) -> bytes:
    """An ID3v2 tag of ``size`` bytes and ten, with bytes in it that look like sound."""
    sizes = bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\x04\0\0" + sizes + (b"\xff\xfb\x90\x64fLaC" * (size // 8 + 1))[:size]


def film(
    container: str, tracks: Sequence[npt.NDArray[np.int16]], codec: str = "aac", *,
    picture: str | None = None, late: int = 0, default: int | None = None,
) -> bytes:  # fmt: skip
    """Sound tracks of 48 kHz side by side, which begin ``late`` s after a ``picture`` (a codec); ``default`` is marked so."""
    out = io.BytesIO()
    with av.open(out, "w", format=container) as file:
        packets: list[Any] = []
        moving = cast("av.VideoStream", file.add_stream(picture, rate=10)) if picture else None
        if moving is not None:
            moving.width, moving.height, moving.pix_fmt = 64, 64, "yuv420p"
        sounds = [cast("av.AudioStream", file.add_stream(codec, rate=48_000, layout="mono")) for _ in tracks]
        for number, sound in enumerate(sounds):
            if default is not None:
                sound.disposition = av.stream.Disposition.default if number == default else av.stream.Disposition(0)
        if moving is not None:
            for number in range(10 * (late + 1)):
                image = av.VideoFrame.from_ndarray(np.full((64, 64, 3), number % 200, np.uint8), format="rgb24")
                image.pts, image.time_base = number, Fraction(1, 10)
                packets += moving.encode(image)
            packets += moving.encode(None)
        for sound, pcm in zip(sounds, tracks, strict=True):
            for at in range(0, len(pcm), 48_000):
                piece = np.ascontiguousarray(pcm[at : at + 48_000]).reshape(1, -1)
                frame = av.AudioFrame.from_ndarray(piece, format="s16", layout="mono")
                frame.sample_rate, frame.pts, frame.time_base = 48_000, at + late * 48_000, Fraction(1, 48_000)
                packets += sound.encode(frame)
            packets += sound.encode(None)
        for packet in sorted(packets, key=lambda packet: float((packet.dts or 0) * packet.time_base)):
            file.mux(packet)
    return out.getvalue()
