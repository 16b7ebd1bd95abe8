"""The pages hold together: links lead somewhere, and files, settings and targets that are named exist."""

import re
import subprocess
from pathlib import Path
from typing import get_args

import pytest

from kaption.adapters.settings import Settings
from kaption.domain.intake.validate import LONGEST_MS, MAX_FRAME, SHORTEST_MS
from kaption.domain.redaction.open_suffix import RECOGNISED
from kaption.testing.brokers import ROOT
from kaption_schemas.audio import RATES
from kaption_schemas.content_type import WIDTH
from kaption_schemas.records import AudioFormat, RunOptions
from kaption_schemas.topics import Type
from tests.support.packages import FOLDERS as PACKAGED

PAGES = sorted(
    {
        path
        for folder in (".", "docs", "docs/adr", "*", "kaption/*", "bench/notes")
        for path in ROOT.glob(f"{folder}/*.md")
    }
)
IDS = [str(page.relative_to(ROOT)) for page in PAGES]
LINK = re.compile(r"\]\(([^)\s]+)\)")
FILE = re.compile(r"`([\w./-]+\.(?:py|yaml|sh|md|flac))`")
#: Where a page may mean a file that it names by its last part.
FOLDERS = (
    ROOT,
    *(
        path
        for package in PACKAGED
        for path in (ROOT / package, *(ROOT / package).rglob("*/"))
        if path.name != "__pycache__"
    ),
)


def anchors(page: Path) -> set[str]:
    heads = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text()):
        if link.startswith("https:"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_files_that_are_named_exist(page: Path) -> None:
    near = [page.parent, *FOLDERS]
    for name in FILE.findall(page.read_text()):
        assert any((folder / name).exists() for folder in near), name


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_settings_and_targets_that_are_named_exist(page: Path) -> None:
    text = page.read_text()
    known = {f"KAPTION_{name.upper()}" for name in Settings.model_fields}
    assert set(re.findall(r"KAPTION_[A-Z0-9_]+", text)) <= known
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)", text)) <= targets


def test_nothing_of_a_developers_machine_is_committed() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert not [
        name for name in listed if re.search(r"(^|/)(\.cache|\.venv|__pycache__|node_modules)/|\.(pyc|wav|log)$", name)
    ]


def test_the_page_of_redaction_names_each_entity() -> None:
    text = (ROOT / "docs" / "security.md").read_text()
    assert [name for name in sorted(RECOGNISED) if name not in text] == []


def test_the_page_of_plain_clients_names_each_option_format_and_rate() -> None:
    text = (ROOT / "docs" / "kafka.md").read_text()
    assert [name for name in RunOptions.model_fields if f"| `{name}` |" not in text] == []
    encodings = get_args(AudioFormat.model_fields["encoding"].annotation)
    containers = [name for name in encodings if name not in WIDTH]
    assert [name for name in WIDTH if f"`{name}`" not in text] == []
    assert [name for name in containers if f"`audio/{name}`" not in text] == []
    assert [rate for rate in RATES if not re.search(rf"\b{rate}\b", text)] == []
    assert f"{SHORTEST_MS} to {LONGEST_MS} ms" in text
    assert f"{MAX_FRAME >> 10} KiB" in text


@pytest.mark.parametrize("package", ["kaption", "streams", "gpu_service", "schemas", "tests", "bench", "docs", "."])
def test_modules_that_are_named_exist(package: str) -> None:
    """A docstring or page that names ``kaption.domain.pool.ports.Sessions`` still leads there after a move."""
    named = re.compile(r"`((?:kaption|kaption_gpu|kaption_streams|kaption_schemas)(?:\.\w+)+)")
    paths = [
        path for path in (ROOT / package).glob("*.md" if package == "." else "**/*") if path.suffix in {".py", ".md"}
    ]
    wrong = {
        (str(path.relative_to(ROOT)), name)
        for path in paths
        if path.name != "CHANGELOG.md"
        for name in named.findall(path.read_text())
        if name not in set(Type) and not leads_somewhere(name)
    }
    assert not wrong


def leads_somewhere(name: str) -> bool:
    """Whether a dotted name is a module, or a name that stands in the module's file."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        for root in (ROOT, *(ROOT / folder for folder in ("schemas", "streams", "gpu_service"))):
            module = root.joinpath(*parts[:count])
            file = module / "__init__.py" if module.is_dir() else module.with_suffix(".py")
            if file.is_file():
                return all(re.search(rf"\b{part}\b", file.read_text()) for part in parts[count:])
    return False
