"""Media files made while the tests run, by PyAV."""

import io
from typing import cast

import av
import numpy as np
import numpy.typing as npt


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
