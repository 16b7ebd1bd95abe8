"""Which encoder is chosen, and that it stays chosen."""

import math
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from kaption.adapters.models.encoder_choice import Choice, choice_file, known_choices, machine, remembered
from kaption.adapters.models.weights import find_weights
from kaption.adapters.settings import Settings
from kaption.cli.doctor import check_backend
from kaption_gpu.engine.backends import make_backend
from kaption_gpu.engine.backends.openvino_encoder import OpenVinoEncoder, known_ranges, read_encoder
from kaption_gpu.engine.backends.pairs import choose, fastest
from kaption_gpu.engine.backends.runtime import Mel

DIGEST = f"sha256:{'0' * 64}"


def _choice(name: str) -> Choice:
    return Choice(name, {name: 1.0})


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


@pytest.mark.parametrize("text", ["", "{", '{"name": "x"}', '{"name": "a", "processor": "b", "milliseconds": {}}'])
def test_what_says_nothing_of_use_is_measured_anew(tmp_path: Path, text: str) -> None:
    file = tmp_path / "weights.json"
    file.write_text(text)
    assert remembered(file, lambda: _choice("openvino")).name == "openvino"
    assert remembered(file, lambda: _choice("other")).name == "openvino"


def test_auto_takes_one_of_the_pairs_and_remembers_it(tmp_path: Path) -> None:
    first = make_backend(Settings(backend="auto", data=tmp_path))
    assert first.info.backend in {"faster-whisper", "openvino", "openvino-int8"}
    assert re.fullmatch(r"(int8-)?(bf16|f32)/int8|int8", first.info.precision)
    [choice] = known_choices(Settings(backend="auto", data=tmp_path))
    assert choice.name == first.info.backend
    assert choice.name == choose(choice.milliseconds)


async def test_the_doctor_names_the_choice_and_what_each_pair_took(tmp_path: Path) -> None:
    settings = Settings(backend="auto", data=tmp_path)
    assert (await check_backend(settings)).ok is None
    took = {"openvino": 8.3, "faster-whisper": 15.9, "openvino-int8": 8.1}
    remembered(choice_file(settings, DIGEST), lambda: Choice("openvino", took))
    found = await check_backend(settings)
    assert found.ok
    each = "openvino-int8 8.1 ms, openvino 8.3 ms, faster-whisper 15.9 ms"
    assert found.what == f"openvino, by what 6 s took to encode: {each}"


def test_what_was_chosen_on_another_machine_or_by_other_versions_is_not_taken(tmp_path: Path) -> None:
    settings = Settings(backend="auto", data=tmp_path)
    file = choice_file(settings, DIGEST)
    remembered(file.with_name(file.name.replace(machine(), "0123456789abcdef")), lambda: _choice("openvino"))
    assert known_choices(settings) == []
    assert remembered(file, lambda: _choice("faster-whisper")).name == "faster-whisper"
    assert [choice.name for choice in known_choices(settings)] == ["faster-whisper"]


class Fake:
    """An encoder that takes no time, and says ``factor`` times what is right, or something else."""

    def __init__(self, factor: float, *, wrong: bool = False) -> None:
        self.factor, self.wrong = factor, wrong

    def encode(self, mel: Mel) -> Mel:
        right = np.cumsum(mel, axis=2, dtype=np.float32)
        return (right[:, ::-1] if self.wrong else right) * np.float32(self.factor)


def test_an_encoder_that_agrees_with_no_other_is_not_chosen_however_fast() -> None:
    right = {"openvino": Fake(1.0), "faster-whisper": Fake(1.01)}
    for wrong in (Fake(1.0, wrong=True), Fake(math.nan), Fake(0.0)):
        assert fastest({**right, "openvino-int8": wrong}, 2, 80).milliseconds.keys() == right.keys()
    assert fastest({**right, "openvino-int8": Fake(0.99)}, 2, 80).milliseconds.keys() == {*right, "openvino-int8"}


def test_where_none_agrees_the_decoders_own_runtime_encodes() -> None:
    assert fastest({"openvino": Fake(1.0), "faster-whisper": Fake(1.0, wrong=True)}, 2, 80).name == "faster-whisper"


def test_of_pairs_that_hardly_differ_the_most_exact_is_taken() -> None:
    assert choose({"openvino": 8.3, "faster-whisper": 15.9, "openvino-int8": 8.1}) == "openvino"
    assert choose({"openvino": 39.0, "faster-whisper": 41.0, "openvino-int8": 30.0}) == "openvino-int8"
    assert choose({"openvino": 60.0, "faster-whisper": 41.0, "openvino-int8": 40.0}) == "faster-whisper"


@pytest.mark.parametrize("alias", ["tiny.en", "base"])
def test_the_packaged_weights_have_ranges(alias: str, tmp_path: Path) -> None:
    ranges = known_ranges(find_weights(Settings(model=alias, data=tmp_path)).digest)
    assert ranges
    assert all(low < high for low, high in ranges.values())


def _niceness() -> dict[str, int]:
    """Of each thread of this process, by its id."""
    stats = {task.name: (task / "stat").read_text() for task in Path("/proc/self/task").iterdir()}
    return {thread: int(stat.rpartition(")")[2].split()[16]) for thread, stat in stats.items()}


def test_threads_that_compute_step_back_whoever_meets_a_new_length(tmp_path: Path) -> None:
    """Windows of files, which are not warmed, are first met by an executor, which must not be nice itself."""
    weights = find_weights(Settings(data=tmp_path))
    encoder = OpenVinoEncoder(read_encoder(weights.folder), 2)
    before = _niceness()
    encoder.encode(np.zeros((1, 80, 2400), np.float32))
    made = {thread: nice for thread, nice in _niceness().items() if thread not in before}
    assert made
    assert set(made.values()) == {10}


def test_openvino_reports_nothing_to_anybody() -> None:
    assert sys.modules["openvino_telemetry"] is None
