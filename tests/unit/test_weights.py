"""Weights are found, joined from parts, and refused with a remedy."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from kaption.adapters.models.weights import find_weights
from kaption.adapters.settings import Settings
from kaption_gpu.engine.backends.ct2_file import read_arrays, whisper_state
from kaption_schemas.errors import IncompatibleError


def test_tiny_en_comes_from_its_package(tmp_path: Path) -> None:
    weights = find_weights(Settings(model="tiny.en", data=tmp_path))
    content = (weights.folder / "model.bin").read_bytes()
    assert weights.digest == f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert list(tmp_path.iterdir()) == []


def test_base_is_joined_once_however_many_ask(tmp_path: Path) -> None:
    settings = Settings(model="base", data=tmp_path)
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(find_weights, [settings] * 3))
    assert len(set(found)) == 1
    assert [path.name for path in (tmp_path / "weights").iterdir()] == ["base"]
    assert {path.name for path in found[0].folder.iterdir()} >= {"model.bin", "config.json", "tokenizer.json"}
    joined = (found[0].folder / "model.bin").stat().st_mtime_ns
    assert find_weights(settings) == found[0]
    assert (found[0].folder / "model.bin").stat().st_mtime_ns == joined


@pytest.mark.parametrize("name", ["model.bin", "tokenizer.json"])
def test_other_weights_under_a_known_name_are_refused(tmp_path: Path, name: str) -> None:
    settings = Settings(model="base", data=tmp_path)
    folder = find_weights(Settings(model="base", data=tmp_path / "first")).folder
    (tmp_path / "weights").mkdir()
    folder.rename(tmp_path / "weights/base")
    with (tmp_path / "weights/base" / name).open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xa5")
    with pytest.raises(IncompatibleError, match="another digest"):
        find_weights(settings)


def test_a_folder_of_models_goes_first(tmp_path: Path) -> None:
    (tmp_path / "house").mkdir()
    (tmp_path / "house" / "model.bin").write_bytes(b"weights")
    weights = find_weights(Settings(model="house", models=tmp_path))
    assert weights.folder == tmp_path / "house"
    assert weights.digest == f"sha256:{hashlib.sha256(b'weights').hexdigest()}"


@pytest.mark.parametrize("models", [None, "empty"])
def test_an_unknown_alias_says_what_to_do(tmp_path: Path, models: str | None) -> None:
    settings = Settings(model="huge", models=tmp_path / models if models else None, data=tmp_path)
    with pytest.raises(IncompatibleError, match="no weights for 'huge'"):
        find_weights(settings)


def test_the_weight_file_is_read_as_arrays_and_under_whispers_names(tmp_path: Path) -> None:
    weights = find_weights(Settings(model="tiny.en", data=tmp_path))
    arrays = read_arrays(weights.folder / "model.bin")
    assert arrays["decoder/projection/weight"] is arrays["decoder/embeddings/weight"]
    state = whisper_state(arrays)
    assert state["encoder.conv1.weight"].shape == (384, 80, 3)
    assert state["decoder.blocks.3.cross_attn.value.weight"].shape == (384, 384)
    assert "decoder.blocks.0.attn.key.bias" not in state
    assert all(values.dtype == np.float32 and np.isfinite(values).all() for values in state.values())


def test_another_file_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"\x05\0\0\0", b"\x06\0\0\0\x02\0W\0\x03\0\0\0\x09\0\0\0"):
        (tmp_path / "model.bin").write_bytes(content)
        with pytest.raises(IncompatibleError):
            read_arrays(tmp_path / "model.bin")
    with pytest.raises(IncompatibleError, match="lack"):
        whisper_state({})
