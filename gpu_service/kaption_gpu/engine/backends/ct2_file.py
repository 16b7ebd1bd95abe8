"""Reads CTranslate2's model.bin as arrays, and renames them as openai-whisper does.

One weight file serves every backend, so that backends can be compared. The file is a flat list of named arrays
(CTranslate2, ``ctranslate2/specs/model_spec.py``): little endian, strings with their length and a zero byte.
"""

import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from kaption_schemas.errors import IncompatibleError

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float32]

#: Version of the layout; older ones lack the type of an array.
VERSION = 6
_TYPES = (np.float32, np.int8, np.int16, np.int32, np.float16)
_BRAIN_FLOAT = 5


def read_arrays(path: Path) -> dict[str, Array]:
    """Read all arrays of ``path`` by name, aliases included, in their stored types; bfloat16 becomes float32.

    Raises:
        IncompatibleError: The file has another layout or ends early.
    """
    with path.open("rb") as file:
        try:
            return _read(file)
        except (struct.error, ValueError, UnicodeDecodeError, IndexError) as error:
            raise IncompatibleError(
                f"{path.name} is no CTranslate2 weight file of version {VERSION}: {error}"
            ) from error


def _read(file: BinaryIO) -> dict[str, Array]:
    version = _number(file, "<I")
    if version != VERSION:
        raise ValueError(f"version {version}")
    _string(file)  # the model's kind
    _number(file, "<I")  # and the kind's revision
    arrays = dict(_array(file) for _ in range(_number(file, "<I")))
    for _ in range(_number(file, "<I")):
        alias, name = _string(file), _string(file)
        arrays[alias] = arrays[name]
    return arrays


def _array(file: BinaryIO) -> tuple[str, Array]:
    name = _string(file)
    shape = tuple(_number(file, "<I") for _ in range(_number(file, "<B")))
    kind = _number(file, "<B")
    data = file.read(_number(file, "<I"))
    if kind == _BRAIN_FLOAT:
        wide = np.frombuffer(data, np.uint16).astype(np.uint32) << 16
        return name, wide.view(np.float32).reshape(shape)
    return name, np.frombuffer(data, _TYPES[kind]).reshape(shape)


def _number(file: BinaryIO, layout: str) -> int:
    return int(struct.unpack(layout, file.read(struct.calcsize(layout)))[0])


def _string(file: BinaryIO) -> str:
    return file.read(_number(file, "<H")).rstrip(b"\0").decode()


def whisper_state(arrays: dict[str, Array]) -> dict[str, Floats]:
    """Return the arrays under openai-whisper's names, as float32; int8 weights are multiplied by their rows' scale.

    Raises:
        IncompatibleError: An array that Whisper needs is missing.
    """
    try:
        return _state(arrays)
    except KeyError as error:
        raise IncompatibleError(f"the weights lack {error}") from error


def _state(arrays: dict[str, Array]) -> dict[str, Floats]:
    state = {
        "encoder.positional_embedding": _floats(arrays, "encoder/position_encodings/encodings"),
        "decoder.positional_embedding": _floats(arrays, "decoder/position_encodings/encodings"),
        "decoder.token_embedding.weight": _floats(arrays, "decoder/embeddings/weight"),
    }
    for conv in ("conv1", "conv2"):
        for part in ("weight", "bias"):
            state[f"encoder.{conv}.{part}"] = _floats(arrays, f"encoder/{conv}/{part}")
    state |= _norm(arrays, "encoder/layer_norm", "encoder.ln_post")
    state |= _norm(arrays, "decoder/layer_norm", "decoder.ln")
    for side in ("encoder", "decoder"):
        for number in range(layers(arrays, side)):
            source, target = f"{side}/layer_{number}", f"{side}.blocks.{number}"
            state |= _attention(arrays, f"{source}/self_attention", f"{target}.attn", ("query", "key", "value"))
            state |= _norm(arrays, f"{source}/ffn/layer_norm", f"{target}.mlp_ln")
            state |= _linear(arrays, f"{source}/ffn/linear_0", (f"{target}.mlp.0",))
            state |= _linear(arrays, f"{source}/ffn/linear_1", (f"{target}.mlp.2",))
            if side == "decoder":
                state |= _attention(arrays, f"{source}/attention", f"{target}.cross_attn", ("query",), ("key", "value"))
    return state


def layers(arrays: dict[str, Array], side: str) -> int:
    """Return the number of layers of ``side``, "encoder" or "decoder"."""
    return len({name.split("/")[1] for name in arrays if name.startswith(f"{side}/layer_") and name.count("/") > 2})


def _floats(arrays: dict[str, Array], name: str) -> Floats:
    values = arrays[name].astype(np.float32)
    scale = arrays.get(f"{name}_scale")
    return values if scale is None else values / scale.astype(np.float32).reshape(-1, *[1] * (values.ndim - 1))


def _norm(arrays: dict[str, Array], source: str, target: str) -> dict[str, Floats]:
    return {f"{target}.weight": _floats(arrays, f"{source}/gamma"), f"{target}.bias": _floats(arrays, f"{source}/beta")}


def _linear(arrays: dict[str, Array], source: str, targets: tuple[str, ...]) -> dict[str, Floats]:
    """Split a linear layer that CTranslate2 fused from ``targets``; keys have no bias in Whisper."""
    weights = np.split(_floats(arrays, f"{source}/weight"), len(targets))
    biases = np.split(_floats(arrays, f"{source}/bias"), len(targets))
    state: dict[str, Floats] = {}
    for target, weight, bias in zip(targets, weights, biases, strict=True):
        state[f"{target}.weight"] = weight
        if not target.endswith(".key"):
            state[f"{target}.bias"] = bias
    return state


def _attention(arrays: dict[str, Array], source: str, target: str, *fused: tuple[str, ...]) -> dict[str, Floats]:
    """Return an attention's layer norm, which precedes it, its fused input layers, and its output layer."""
    state = _norm(arrays, f"{source}/layer_norm", f"{target}_ln")
    for number, names in enumerate(fused):
        state |= _linear(arrays, f"{source}/linear_{number}", tuple(f"{target}.{name}" for name in names))
    return state | _linear(arrays, f"{source}/linear_{len(fused)}", (f"{target}.out",))
