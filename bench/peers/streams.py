"""How each peer is started and spoken to: its server's command, and one stream of its WebSocket protocol. No sockets here."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Message = Mapping[str, Any]


class Stream(Protocol):
    """One connection's state. Messages are the server's JSON."""

    opening: str | None
    """What the client says first, if anything."""
    end: bytes
    """What says that the audio has ended."""
    end_at_once: bool
    """Whether ``end`` may follow the audio at once: the server then still says what it has not said."""

    def ready(self, message: Message) -> bool:
        """Whether ``message`` says that audio may come."""

    def frame(self, pcm: npt.NDArray[np.int16]) -> bytes:
        """A frame of shape (n,) as the server wants it."""

    def seen(self, message: Message) -> tuple[str, str] | None:
        """The whole stream's text as a reader now sees it, and the part that the server calls final; None for other messages."""

    def ended(self, message: Message) -> bool:
        """Whether ``message`` is the last one."""


class WhisperLive:
    """Segments, ``completed`` or not; only the last ten are sent, so that earlier ones are kept here."""

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
        """It says so."""
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
        """It never says."""
        return message.get("message") == "DISCONNECT"


class WhisperLiveKit:
    """Lines of committed text, and a buffer of text that may change."""

    opening: str | None = None
    end = b""
    end_at_once = True

    def ready(self, message: Message) -> bool:
        """Its configuration comes first."""
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
        """It says so when everything is transcribed."""
        return message.get("type") == "ready_to_stop"


_WHISPERLIVE = """
from whisper_live.server import TranscriptionServer
TranscriptionServer().run("127.0.0.1", port={port}, backend="faster_whisper", max_clients=64, single_model=True,
                          faster_whisper_custom_model_path={weights!r})
"""


@dataclass(frozen=True, slots=True)
class Peer:
    """A peer: its package, the path of its WebSocket, what one stream is, and what was chosen or switched off for it."""

    package: str
    path: str
    stream: type[Stream]
    setting: str

    def command(self, name: str, port: int, weights: Path) -> list[str]:
        """What starts its server on loopback."""
        programs = Path(".cache/peers") / name / "bin"
        if name == "whisperlive":
            program = _WHISPERLIVE.format(port=port, weights=str(weights))
            return [str(programs / "python"), "-c", program]
        options = [
            "--backend",
            "faster-whisper",
            "--backend-policy",
            "localagreement",
            "--language",
            "en",
            "--pcm-input",
        ]
        place = ["--host", "127.0.0.1", "--port", str(port), "--model_dir", str(weights)]
        return [str(programs / "wlk"), "serve", *place, *options, "--warmup-file", "", "--log-level", "WARNING"]


PEERS: dict[str, Peer] = {
    "whisperlive": Peer(
        "whisper-live 0.10.0",
        "/",
        WhisperLive,
        "faster_whisper backend, int8, one model for all clients, VAD on, two threads (its default is one)",
    ),
    "whisperlivekit": Peer(
        "whisperlivekit 0.2.26",
        "/asr",
        WhisperLiveKit,
        "LocalAgreement over faster-whisper (its default, AlignAtt, needs PyTorch weights), VAC on, no warm-up file, two threads",
    ),
}
