"""The pages have their form: decisions their headings, folders a short README, pictures what their script draws."""

import re
from pathlib import Path

import pytest

from kaption.testing.brokers import ROOT
from tests.support.packages import FOLDERS as PACKAGED
from tools.pictures import PICTURES, pictures

DECISIONS = sorted((ROOT / "docs" / "adr").glob("0*.md"))
FOLDERS = [
    "demo",
    "docs",
    "kaption/adapters",
    "kaption/cli",
    "kaption/client",
    "kaption/domain",
    "kaption/service",
    "kaption/testing",
    "tests",
    "tools",
    *PACKAGED,
]
LONGEST = 10


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.stem)
def test_a_decision_has_its_headings_in_order(page: Path) -> None:
    text = page.read_text()
    form = r"# \d+\. .+\n\nStatus: (accepted|superseded).*\.\nDate: \d+ [A-Z][a-z]+ \d{4}\.\n\n"
    assert re.match(form, text)
    heads = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert heads[:3] == ["Context", "Decision", "Consequences"]


def test_the_index_of_decisions_names_each_by_its_title() -> None:
    index = (ROOT / "docs" / "adr" / "README.md").read_text()
    for page in DECISIONS:
        number, title = re.findall(r"# (\d+)\. (.+)", page.read_text())[0]
        assert f"- [{number}]({page.name}) {title}." in index


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_says_in_ten_lines_what_lives_there_and_what_does_not(folder: str) -> None:
    text = (ROOT / folder / "README.md").read_text()
    assert len(text.splitlines()) <= LONGEST
    assert "does not live here" in text


def test_the_pictures_are_what_their_script_draws() -> None:
    for name, text in pictures().items():
        assert (PICTURES / name).read_text() == text, f"{name}: run python -m tools.pictures"


def test_the_readmes_pictures_exist_in_light_and_dark_and_have_a_text() -> None:
    text = (ROOT / "README.md").read_text()
    pictures_there = re.findall(
        r'<picture>\n  <source media="\(prefers-color-scheme: dark\)" srcset="(\S+)-dark\.svg">\n  <img src="(\S+)-light\.svg" alt="(.+)">',
        text,
    )
    assert len(pictures_there) == text.count("<picture>") > 0
    for dark, light, alt in pictures_there:
        assert dark == light
        assert all((ROOT / f"{light}-{theme}.svg").exists() for theme in ("light", "dark"))
        assert len(alt.split()) > 10
