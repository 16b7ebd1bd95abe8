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

    def __call__(self, frames: Audio) -> list[float]:
        """The probability of speech in each of ``frames``: one run of the network, which is bit-equal to a run a frame.

        Args:
            frames: Shape (n * 512,), float32, the frames after those of the last call.

        Raises:
            ValueError: The frames have another shape.
        """
        count, rest = divmod(frames.size, VAD_FRAME)
        if frames.ndim != 1 or rest or not count:
            raise ValueError(f"frames have shape (n * {VAD_FRAME},), not {frames.shape}")
        samples = np.empty((count, CONTEXT + VAD_FRAME), np.float32)
        samples[:, CONTEXT:] = frames.reshape(count, VAD_FRAME)
        samples[0, :CONTEXT] = self._context
        samples[1:, :CONTEXT] = samples[:-1, -CONTEXT:]
        found, self._h, self._c = self._session.run(None, {"input": samples, "h": self._h, "c": self._c})
        self._context = samples[-1, -CONTEXT:]
        probabilities: list[float] = found.reshape(count).tolist()
        return probabilities
