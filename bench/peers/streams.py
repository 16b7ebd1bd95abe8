"""Defines each peer's server command and one stream of its WebSocket protocol, without sockets."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from bench.peers.weights import torch_weights

Message = Mapping[str, Any]


class Stream(Protocol):
    """One connection's state. Messages are the server's JSON."""

    opening: str | None
    """The client's first message, if any."""
    end: bytes
    """The message that signals the end of the audio."""
    end_at_once: bool
    """Whether ``end`` may follow the audio at once: the server then still sends the remaining text."""

    def ready(self, message: Message) -> bool:
        """Whether ``message`` allows audio."""

    def frame(self, pcm: npt.NDArray[np.int16]) -> bytes:
        """Encode a frame of shape (n,) for the server."""

    def seen(self, message: Message) -> tuple[str, str] | None:
        """Return the whole stream's text for a reader, and the part that the server calls final; None for other messages."""

    def ended(self, message: Message) -> bool:
        """Whether ``message`` is the last one."""


class WhisperLive:
    """Segments, ``completed`` or not; the server sends only the last ten, so earlier ones are kept here."""

    opening: str | None = json.dumps(
        {
            "uid": "bench",
            "language": "en",
            "task": "transcribe",
            "model": "tiny.en",
            "use_vad": True,
            "audio_format": "float32",
        }
    )
    end = b"END_OF_AUDIO"
    end_at_once = False

    def __init__(self) -> None:
        self._completed: dict[float, str] = {}

    def ready(self, message: Message) -> bool:
        """Whether the server says so."""
        return message.get("message") == "SERVER_READY"

    def frame(self, pcm: npt.NDArray[np.int16]) -> bytes:
        """Floats of -1 to 1."""
        return (pcm.astype(np.float32) / 32768).tobytes()

    def seen(self, message: Message) -> tuple[str, str] | None:
        """Completed segments in order, then the one that is open."""
        if "segments" not in message:
            return None
        last = ""
        for segment in message["segments"]:
            if segment["completed"]:
                self._completed[float(segment["start"])] = segment["text"].strip()
            else:
                last = segment["text"].strip()
        committed = " ".join(text for _, text in sorted(self._completed.items()))
        return f"{committed} {last}", committed

    def ended(self, message: Message) -> bool:
        """Never: the server sends no end."""
        return message.get("message") == "DISCONNECT"


class WhisperLiveKit:
    """Lines of committed text, and a buffer of text that may change."""

    opening: str | None = None
    end = b""
    end_at_once = True

    def ready(self, message: Message) -> bool:
        """Whether it is the configuration, which comes first."""
        return message.get("type") == "config"

    def frame(self, pcm: npt.NDArray[np.int16]) -> bytes:
        """Plain PCM."""
        return pcm.astype("<i2").tobytes()

    def seen(self, message: Message) -> tuple[str, str] | None:
        """The lines, then the buffer."""
        if "lines" not in message:
            return None
        committed = " ".join(line["text"].strip() for line in message["lines"] if line["text"])
        return f"{committed} {message['buffer_transcription'].strip()}", committed

    def ended(self, message: Message) -> bool:
        """Whether the server says that everything is transcribed."""
        return message.get("type") == "ready_to_stop"


_WHISPERLIVE = """
from whisper_live.server import TranscriptionServer
TranscriptionServer().run("127.0.0.1", port={port}, backend="faster_whisper", max_clients=64, single_model=True,
                          faster_whisper_custom_model_path={weights!r})
"""


@dataclass(frozen=True, slots=True)
class Peer:
    """A peer: its environment and package, its server's command, its stream, and the options chosen or switched off.

    ``command`` takes the environment's programs, a port on loopback and the folder of the weights.
    """

    home: str
    package: str
    path: str
    stream: type[Stream]
    command: Callable[[Path, int, Path], list[str]]
    setting: str

    @property
    def programs(self) -> Path:
        """The folder of its environment's programs."""
        return Path(".cache/peers") / self.home / "bin"


def _whisperlive(programs: Path, port: int, weights: Path) -> list[str]:
    return [str(programs / "python"), "-c", _WHISPERLIVE.format(port=port, weights=str(weights))]


def _whisperlivekit(programs: Path, port: int, *options: str) -> list[str]:
    place = ["--host", "127.0.0.1", "--port", str(port)]
    common = ["--language", "en", "--pcm-input", "--warmup-file", "", "--log-level", "WARNING"]
    return [str(programs / "wlk"), "serve", *place, *common, *options]


def _alignatt(programs: Path, port: int, weights: Path) -> list[str]:
    decoder, heads = torch_weights(weights, programs / "python")
    paths = ["--encoder-model-path", str(weights), "--decoder-model-path", str(decoder)]
    return _whisperlivekit(programs, port, *paths, f"--custom-alignment-heads={heads}")


def _agreement(programs: Path, port: int, weights: Path) -> list[str]:
    options = ["--backend", "faster-whisper", "--backend-policy", "localagreement", "--model_dir", str(weights)]
    return _whisperlivekit(programs, port, *options)


PEERS: dict[str, Peer] = {
    "whisperlive": Peer(
        "whisperlive",
        "whisper-live 0.10.0",
        "/",
        WhisperLive,
        _whisperlive,
        "faster_whisper backend, int8, one model for all clients, VAD on, two threads (its default is one)",
    ),
    "whisperlivekit": Peer(
        "whisperlivekit",
        "whisperlivekit 0.2.26",
        "/asr",
        WhisperLiveKit,
        _alignatt,
        "its default policy, AlignAtt; faster-whisper encodes, PyTorch decodes; VAC on, no warm-up file, two threads",
    ),
    "whisperlivekit-agreement": Peer(
        "whisperlivekit",
        "whisperlivekit 0.2.26",
        "/asr",
        WhisperLiveKit,
        _agreement,
        "LocalAgreement over faster-whisper; VAC on, no warm-up file, two threads",
    ),
}
