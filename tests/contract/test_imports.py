"""What import-linter does not look at: benchmarks and the shipped fakes stand on the product, not on its tests."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("folder", ["bench", "tools", "kaption", "streams", "gpu_service", "schemas"])
def test_nothing_outside_the_tests_imports_them_or_pytest(folder: str) -> None:
    imports = re.compile(r"^\s*(?:from|import) (?:tests|pytest)\b", re.MULTILINE)
    found = [str(path) for path in (ROOT / folder).rglob("*.py") if imports.search(path.read_text())]
    assert not found
