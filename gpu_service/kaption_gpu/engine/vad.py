"""Detects voice with Silero's network, the ONNX file inside faster-whisper, on OpenVINO.

A process has one set of networks, each stream a small state. OpenVINO takes about half the time of ONNX Runtime
(docs/adr/0017). Its results do not depend on which frames run together, except for a single frame (HAZARDS, OpenVINO 4): so
no frame runs alone.
"""

from functools import lru_cache
from pathlib import Path

import faster_whisper
import numpy as np
import numpy.typing as npt

from kaption.domain.decoding.port import VAD_FRAME, Audio
from kaption_gpu.engine.quiet_openvino import ov

#: Samples of the previous frame that the network gets before each frame.
CONTEXT = 64
_STATE_SHAPE = (1, 1, 128)
#: Frames of one run, most first, with a graph for each: a graph for any number takes twice the time for three. 100 ms have three
#: or four frames, a block of a file 32; any number except one is a sum of these.
_RUNS = (32, 4, 3, 2)

Floats = npt.NDArray[np.float32]


class _Network:
    """The network for one number of frames, with memory for its inputs and outputs. For one thread."""

    def __init__(self, core: ov.Core, file: Path, frames: int) -> None:
        model = core.read_model(str(file))
        model.reshape({"input": [frames, CONTEXT + VAD_FRAME]})
        options = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": 1}
        compiled = core.compile_model(model, "CPU", {**options, "ENABLE_CPU_PINNING": False})
        self._request = compiled.create_infer_request()
        self._in: list[Floats] = [self._request.get_input_tensor(n).data for n in range(3)]
        self._out: list[Floats] = [self._request.get_output_tensor(n).data for n in range(3)]

    def run(self, samples: Floats, h: Floats, c: Floats) -> tuple[list[float], Floats, Floats]:
        """Return the probabilities of ``samples``, shape (frames, 576), after the state ``h``, ``c``; and the next state."""
        for tensor, value in zip(self._in, (samples, h, c), strict=True):
            tensor[:] = value
        self._request.infer()
        probabilities, after_h, after_c = self._out
        return probabilities.tolist(), after_h.copy(), after_c.copy()


@lru_cache(maxsize=1)
def _networks() -> dict[int, _Network]:
    """Return the process's networks, by their number of frames."""
    core, file = ov.Core(), Path(faster_whisper.__file__).parent / "assets" / "silero_vad_v6.onnx"
    return {frames: _Network(core, file, frames) for frames in _RUNS}


class SileroDetector:
    """A ``kaption.domain.decoding.port.VoiceDetector``: speech probability of one stream's frames of 512 samples at 16 kHz."""

    def __init__(self) -> None:
        self._networks = _networks()
        self.reset()

    def reset(self) -> None:
        """Forget all frames."""
        self._h: Floats = np.zeros(_STATE_SHAPE, np.float32)
        self._c: Floats = np.zeros(_STATE_SHAPE, np.float32)
        self._context: Audio = np.zeros(CONTEXT, np.float32)
        #: A single frame, shape (1, 576); the state is the one before it.
        self._lone: Floats | None = None

    def __call__(self, frames: Audio) -> list[float]:
        """Return the probability of speech in each of ``frames``, bit-equal however a stream's frames are split into calls.

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
        self._context = samples[-1, -CONTEXT:]
        if self._lone is not None:
            samples = np.concatenate([self._lone, samples])
        if len(samples) == 1:
            # A single frame gives other low-order bits: pad it with a copy and keep the first result; rerun it with the
            # real next frame for the state.
            self._lone = samples
            return self._networks[2].run(np.repeat(samples, 2, axis=0), self._h, self._c)[0][:1]
        self._lone = None
        return self._hear(samples)[-count:]

    def _hear(self, samples: Floats) -> list[float]:
        """Return the probabilities of two frames or more, and keep the state after them."""
        probabilities: list[float] = []
        while left := len(samples) - len(probabilities):
            at, size = len(probabilities), next(n for n in _RUNS if n <= left and left - n != 1)
            found, self._h, self._c = self._networks[size].run(samples[at : at + size], self._h, self._c)
            probabilities += found
        return probabilities
