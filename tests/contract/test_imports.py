"""What import-linter does not look at: a service that no contract names, and benchmarks and the shipped fakes stand on the product, not on its tests."""

import re

import pytest

from kaption.service.services import SERVICES
from tests.support.packages import FOLDERS, PACKAGES, PYPROJECT, ROOT


@pytest.mark.parametrize("folder", ["bench", "tools", *FOLDERS])
def test_nothing_outside_the_tests_imports_them_or_pytest(folder: str) -> None:
    imports = re.compile(r"^\s*(?:from|import) (?:tests|pytest)\b", re.MULTILINE)
    found = [str(path) for path in (ROOT / folder).rglob("*.py") if imports.search(path.read_text())]
    assert not found


def test_each_service_is_installed_typed_and_in_every_contract() -> None:
    """docs/changing.md: a package that pyproject.toml leaves out would be neither checked nor shipped, and nothing would say so."""
    modules, tool = {one.module for one in SERVICES}, PYPROJECT["tool"]
    assert {one.extra for one in SERVICES} <= PYPROJECT["project"]["optional-dependencies"].keys()
    assert modules <= {package.rpartition("/")[2] for package in PACKAGES}
    assert set(PACKAGES) <= set(tool["mypy"]["files"])
    assert {folder for folder, package in zip(FOLDERS, PACKAGES, strict=True) if folder != package} <= set(
        tool["mypy"]["mypy_path"]
    ) & set(tool["ruff"]["src"])
    rules = {rule["name"]: rule for rule in tool["importlinter"]["contracts"]}
    assert modules <= set(tool["importlinter"]["root_packages"])
    assert modules <= set(rules["Imports point down only"]["layers"][0].split(" | "))
    assert modules <= set(rules["Nothing but the codec knows how a header is written"]["source_modules"])
    assert modules <= set(rules["Client and command line do not import the services"]["forbidden_modules"])
