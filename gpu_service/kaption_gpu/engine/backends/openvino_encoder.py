"""Runs Whisper's encoder on OpenVINO, with a graph built from the CTranslate2 weight file, without PyTorch.

It computes in bf16 if the processor has it, or in int8 with static activation ranges (``ranges.json``), and the rest in
float32. Each run has one item, so that no item depends on others. Each window length has its own compiled graph, since a
new shape requires compilation (HAZARDS, OpenVINO 2).
"""

import json
import queue
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kaption.domain.decoding.port import WINDOW_SECONDS
from kaption_gpu.engine.backends.ct2_file import Floats, layers, read_arrays, whisper_state
from kaption_gpu.engine.backends.runtime import MEL_RATE, Mel
from kaption_gpu.engine.executor import step_back
from kaption_gpu.engine.quiet_openvino import op, ov

Node = Any  # OpenVINO's graph nodes have no types of their own
#: Levels of an 8-bit activation (asymmetric) and of a weight (symmetric).
_ACTIVATION_LEVELS = 256
_WEIGHT_LEVELS = 255
_EPSILON = 1e-5


@dataclass(frozen=True, slots=True)
class EncoderWeights:
    """The source of the graph: arrays under openai-whisper's names, and the shape of the network."""

    state: dict[str, Floats]
    heads: int
    layers: int

    @property
    def width(self) -> int:
        """Width of the encoder's output."""
        return int(self.state["encoder.positional_embedding"].shape[1])

    @property
    def mels(self) -> int:
        """Mel bands of its input."""
        return int(self.state["encoder.conv1.weight"].shape[1])


def read_encoder(folder: Path) -> EncoderWeights:
    """Read the encoder's weights of a CTranslate2 folder. Raises ``IncompatibleError``."""
    arrays = read_arrays(folder / "model.bin")
    state = {name: values for name, values in whisper_state(arrays).items() if name.startswith("encoder.")}
    return EncoderWeights(state, int(arrays["encoder/num_heads"]), layers(arrays, "encoder"))


def known_ranges(digest: str) -> dict[str, tuple[float, float]] | None:
    """Return the measured activation ranges for weights of ``digest``; None if there are none."""
    measured = json.loads(files(__package__).joinpath("ranges.json").read_text())
    found = measured.get(digest)
    return None if found is None else {name: (low, high) for name, (low, high) in found.items()}


class Graph:
    """Builds the encoder for one input length. ``taps`` collects the inputs of the linear layers, by layer."""

    def __init__(self, weights: EncoderWeights, ranges: dict[str, tuple[float, float]] | None = None) -> None:
        self.taps: dict[str, Node] = {}
        self._weights = weights
        self._ranges = ranges or {}

    def build(self, frames: int, *, with_taps: bool = False) -> ov.Model:
        """Build the model for mel of shape (1, mels, ``frames``); its first output has shape (1, frames / 2, width)."""
        weights = self._weights
        mel = op.parameter([1, weights.mels, frames], np.float32, name="mel")
        x = self._convolution(self._convolution(mel, "encoder.conv1", 1), "encoder.conv2", 2)
        x = op.transpose(x, _integers(0, 2, 1))
        x = op.add(x, _constant(weights.state["encoder.positional_embedding"][None, : frames // 2]))
        for number in range(weights.layers):
            x = self._block(x, f"encoder.blocks.{number}", frames // 2)
        outputs = [self._norm(x, "encoder.ln_post"), *(self.taps.values() if with_taps else ())]
        return ov.Model(outputs, [mel], "whisper-encoder")

    def _block(self, x: Node, name: str, length: int) -> Node:
        weights = self._weights
        split = [1, length, weights.heads, weights.width // weights.heads]

        def heads(y: Node) -> Node:
            return op.transpose(op.reshape(y, _integers(*split), special_zero=False), _integers(0, 2, 1, 3))

        # Query, key and value have the same input, so one range.
        h, seen = self._norm(x, f"{name}.attn_ln"), f"{name}.attn.query"
        query, key, value = (self._linear(h, f"{name}.attn.{part}", seen) for part in ("query", "key", "value"))
        found = op.scaled_dot_product_attention(heads(query), heads(key), heads(value))
        found = op.transpose(found, _integers(0, 2, 1, 3))
        found = op.reshape(found, _integers(1, length, weights.width), special_zero=False)
        x = op.add(x, self._linear(found, f"{name}.attn.out"))
        h = op.gelu(self._linear(self._norm(x, f"{name}.mlp_ln"), f"{name}.mlp.0"), "erf")
        return op.add(x, self._linear(h, f"{name}.mlp.2"))

    def _linear(self, x: Node, name: str, seen: str | None = None) -> Node:
        state, seen = self._weights.state, seen or name
        self.taps.setdefault(seen, x)
        values = state[f"{name}.weight"]
        weight = _shared(values)
        if seen in self._ranges:
            low, high = map(_constant, self._ranges[seen])
            x = op.fake_quantize(x, low, high, low, high, _ACTIVATION_LEVELS)
            most = np.maximum(np.abs(values).max(axis=1, keepdims=True), np.finfo(np.float32).tiny)
            weight = op.fake_quantize(
                weight, _constant(-most), _constant(most), _constant(-most), _constant(most), _WEIGHT_LEVELS
            )
        y = op.matmul(x, weight, transpose_a=False, transpose_b=True)
        bias = state.get(f"{name}.bias")
        return y if bias is None else op.add(y, _constant(bias))

    def _norm(self, x: Node, name: str) -> Node:
        state = self._weights.state
        y = op.mvn(x, _integers(-1), normalize_variance=True, eps=_EPSILON, eps_mode="inside_sqrt")
        return op.add(op.multiply(y, _constant(state[f"{name}.weight"])), _constant(state[f"{name}.bias"]))

    def _convolution(self, x: Node, name: str, stride: int) -> Node:
        state = self._weights.state
        y = op.convolution(x, _shared(state[f"{name}.weight"]), [stride], [1], [1], [1])
        return op.gelu(op.add(y, _constant(state[f"{name}.bias"].reshape(1, -1, 1))), "erf")


class OpenVinoEncoder:
    """Encodes mel of one of a few lengths, on ``streams`` threads at once.

    Args:
        weights: The encoder's weights.
        streams: Concurrent runs, one thread each.
        precision: ``bf16``, ``f32``, or empty for the processor's best.
        ranges: Activation ranges by layer; these layers compute in int8.
    """

    def __init__(
        self,
        weights: EncoderWeights,
        streams: int,
        precision: str = "",
        ranges: dict[str, tuple[float, float]] | None = None,
    ) -> None:
        self._weights = weights
        self._ranges = ranges
        self._streams = streams
        self._options: dict[str, Any] = {
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": streams,
            # With pinning, the streams of two processes would share one core.
            "ENABLE_CPU_PINNING": False,
        }
        if precision:
            self._options["INFERENCE_PRECISION_HINT"] = precision
        self._core = ov.Core()
        self._floats: str | None = None
        self._requests: dict[int, queue.SimpleQueue[ov.InferRequest]] = {}
        self._compiling = threading.Lock()

    @property
    def precision(self) -> str:
        """The precision on this processor: ``bf16`` or ``f32``, with the prefix ``int8-`` if most layers are in int8."""
        if self._floats is None:
            self._compile(WINDOW_SECONDS[0] * MEL_RATE)
        return f"{'int8-' if self._ranges else ''}{self._floats}"

    def encode(self, mel: Mel) -> npt.NDArray[np.float32]:
        """Encode ``mel``, shape (batch, mels, frames), to shape (batch, frames / 2, width)."""
        frames = mel.shape[2]
        waiting = self._requests.get(frames) or self._compile(frames)
        out = np.empty((len(mel), frames // 2, self._weights.width), np.float32)
        request = waiting.get()
        try:
            for row, item in enumerate(mel):
                out[row] = request.infer({0: item[None]}, share_inputs=True, share_outputs=True)[0][0]
        finally:
            waiting.put(request)
        return out

    def _compile(self, frames: int) -> "queue.SimpleQueue[ov.InferRequest]":
        with self._compiling:
            if frames not in self._requests:
                # OpenVINO starts its compute threads here, with the niceness of the compiling thread: not an executor's.
                with ThreadPoolExecutor(1, "compile", step_back) as thread:
                    compiled = thread.submit(self._compiled, frames).result()
                self._floats = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
                waiting: queue.SimpleQueue[ov.InferRequest] = queue.SimpleQueue()
                for _ in range(self._streams):
                    waiting.put(compiled.create_infer_request())
                self._requests[frames] = waiting
            return self._requests[frames]

    def _compiled(self, frames: int) -> ov.CompiledModel:
        model = Graph(self._weights, self._ranges).build(frames)
        return self._core.compile_model(model, "CPU", self._options)


def _constant(values: npt.ArrayLike) -> Node:
    return op.constant(np.ascontiguousarray(values, dtype=np.float32))


def _shared(values: Floats) -> Node:
    """Make a constant of a weight without a copy for each input length."""
    return op.constant(np.ascontiguousarray(values), shared_memory=True)


def _integers(*values: int) -> Node:
    return op.constant(np.array(values, np.int64))
