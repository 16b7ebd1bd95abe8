"""Voice detection: Silero's ONNX file inside faster-whisper, one session a process and one small state a stream."""

from functools import lru_cache
from pathlib import Path

import faster_whisper
import numpy as np
import numpy.typing as npt
import onnxruntime

from kaption.domain.decoding import VAD_FRAME, Audio

#: Samples of the frame before that the network sees ahead of each frame.
CONTEXT = 64
_STATE_SHAPE = (1, 1, 128)


@lru_cache(maxsize=1)
def _session() -> onnxruntime.InferenceSession:
    """The process's one inference session: a run of 0.1 ms is not worth a second thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 4
    path = Path(faster_whisper.__file__).parent / "assets" / "silero_vad_v6.onnx"
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class SileroDetector:
    """A ``kaption.domain.decoding.VoiceDetector``: speech probability of one stream's frames of 512 samples at 16 kHz."""

    def __init__(self) -> None:
        self._session = _session()
        self.reset()

    def reset(self) -> None:
        """Forget the frames so far."""
        self._h: npt.NDArray[np.float32] = np.zeros(_STATE_SHAPE, np.float32)
        self._c: npt.NDArray[np.float32] = np.zeros(_STATE_SHAPE, np.float32)
        self._context: Audio = np.zeros(CONTEXT, np.float32)

    def __call__(self, frame: Audio) -> float:
        """The probability that ``frame`` holds speech.

        Args:
            frame: Shape (512,), float32, the frame after the one of the last call.

        Raises:
            ValueError: The frame has another shape.
        """
        if frame.shape != (VAD_FRAME,):
            raise ValueError(f"a frame has shape ({VAD_FRAME},), not {frame.shape}")
        samples = np.concatenate([self._context, frame], dtype=np.float32)[None]
        probability, self._h, self._c = self._session.run(None, {"input": samples, "h": self._h, "c": self._c})
        self._context = frame[-CONTEXT:].astype(np.float32)
        return float(probability.reshape(()))
