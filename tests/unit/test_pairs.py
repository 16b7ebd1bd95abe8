"""Which encoder is chosen, and that it stays chosen."""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kaption.adapters.encoder_choice import Choice, choice_file, known_choices, processor, remembered
from kaption.adapters.settings import Settings
from kaption.cli.doctor import check_backend
from kaption_gpu.backends import make_backend
from kaption_gpu.backends.openvino_encoder import known_ranges
from kaption_gpu.backends.pairs import choose
from kaption_gpu.weights import find_weights


def _choice(name: str) -> Choice:
    return Choice(name, processor(), {name: 1.0})


def test_a_choice_is_made_once(tmp_path: Path) -> None:
    file = tmp_path / "encoders" / "weights.json"
    assert remembered(file, lambda: _choice("openvino")).name == "openvino"
    assert remembered(file, lambda: _choice("faster-whisper")).name == "openvino"
    assert [path.name for path in file.parent.iterdir()] == ["weights.json"]


def test_workers_that_start_together_choose_alike(tmp_path: Path) -> None:
    file = tmp_path / "weights.json"
    with ThreadPoolExecutor(8) as pool:
        chosen = list(pool.map(lambda n: remembered(file, lambda: _choice(f"pair-{n}")).name, range(8)))
    assert len(set(chosen)) == 1


@pytest.mark.parametrize(
    "text", ["", "{", '{"name": "x"}', '{"name": "a", "processor": "another", "milliseconds": {}}']
)
def test_what_says_nothing_of_this_processor_is_measured_anew(tmp_path: Path, text: str) -> None:
    file = tmp_path / "weights.json"
    file.write_text(text)
    assert remembered(file, lambda: _choice("openvino")).name == "openvino"
    assert remembered(file, lambda: _choice("other")).name == "openvino"


def test_auto_takes_one_of_the_pairs_and_remembers_it(tmp_path: Path) -> None:
    first = make_backend(Settings(backend="auto", data=tmp_path))
    assert first.info.backend in {"faster-whisper", "openvino", "openvino-int8"}
    [choice] = known_choices(Settings(backend="auto", data=tmp_path))
    assert choice.name == first.info.backend
    assert choice.name == choose(choice.milliseconds)


async def test_the_doctor_names_the_choice_and_what_each_pair_took(tmp_path: Path) -> None:
    settings = Settings(backend="auto", data=tmp_path)
    assert (await check_backend(settings)).ok is None
    took = {"openvino": 8.3, "faster-whisper": 15.9, "openvino-int8": 8.1}
    remembered(choice_file(settings, "sha256:0"), lambda: Choice("openvino", processor(), took))
    found = await check_backend(settings)
    assert found.ok
    each = "openvino-int8 8.1 ms, openvino 8.3 ms, faster-whisper 15.9 ms"
    assert found.what == f"openvino, by what 6 s took to encode: {each}"


def test_of_pairs_that_hardly_differ_the_most_exact_is_taken() -> None:
    assert choose({"openvino": 8.3, "faster-whisper": 15.9, "openvino-int8": 8.1}) == "openvino"
    assert choose({"openvino": 39.0, "faster-whisper": 41.0, "openvino-int8": 30.0}) == "openvino-int8"
    assert choose({"openvino": 60.0, "faster-whisper": 41.0, "openvino-int8": 40.0}) == "faster-whisper"


@pytest.mark.parametrize("alias", ["tiny.en", "base"])
def test_the_packaged_weights_have_ranges(alias: str, tmp_path: Path) -> None:
    ranges = known_ranges(find_weights(Settings(model=alias, data=tmp_path)).digest)
    assert ranges
    assert all(low < high for low, high in ranges.values())


def test_openvino_reports_nothing_to_anybody() -> None:
    assert sys.modules["openvino_telemetry"] is None
