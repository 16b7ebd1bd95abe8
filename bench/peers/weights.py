"""Writes Kaption's weights as a PyTorch file, where peers that need one look for it: the same numbers."""

import json
import subprocess
from pathlib import Path

import numpy as np

from kaption_gpu.engine.backends.ct2_file import layers, read_arrays, whisper_state

FOLDER = Path(".cache/peers/weights")
# Runs in the peer's environment, which has PyTorch; says which heads the peer's own table aligns words by.
_SAVE = """
import json, sys
import numpy, torch
from whisperlivekit.whisper import _ALIGNMENT_HEADS
arrays, dims, target = numpy.load(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3]
state = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
torch.save({"dims": dims, "model_state_dict": state}, target)
print(_ALIGNMENT_HEADS["tiny.en"].decode())
"""


def torch_weights(folder: Path, python: Path) -> tuple[Path, str]:
    """Return a file in openai-whisper's layout with the CTranslate2 weights of ``folder``, and the alignment heads' code.

    ``python`` is the interpreter of an environment with PyTorch and WhisperLiveKit.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    arrays = read_arrays(folder / "model.bin")
    state = whisper_state(arrays)
    positions, width = state["encoder.positional_embedding"].shape
    dims = {
        "n_mels": state["encoder.conv1.weight"].shape[1],
        "n_audio_ctx": positions,
        "n_audio_state": width,
        "n_audio_head": int(arrays["encoder/num_heads"]),
        "n_audio_layer": layers(arrays, "encoder"),
        "n_vocab": state["decoder.token_embedding.weight"].shape[0],
        "n_text_ctx": state["decoder.positional_embedding"].shape[0],
        "n_text_state": width,
        "n_text_head": int(arrays["decoder/num_heads"]),
        "n_text_layer": layers(arrays, "decoder"),
    }
    plain, target = FOLDER / "tiny.en.npz", FOLDER / "tiny.en.pt"
    with plain.open("wb") as file:
        np.savez(file, allow_pickle=False, **state)
    argv = [str(python), "-c", _SAVE, str(plain), json.dumps(dims), str(target)]
    heads = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
    plain.unlink()
    return target, heads
