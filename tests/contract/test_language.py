"""Pages and help texts use the words of docs/terms.md, and none that make a sentence hard to read."""

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from kaption.cli.main import cli
from kaption.testing.brokers import ROOT

#: What a page must not say, and what to write instead. docs/terms.md lists the words of the code that these stand for.
HARD = {
    r"beside": "next to, with, against",
    r"told|tells? (?:of|who|whoever)": "reported, says",
    r"nobody": "no one, or the actor's name",
    r"anew": "again",
    r"for ?ever": "without end, always",
    r"in vain": "without an answer",
    r"so (?:many|much)(?! as)": "the number's name",
    r"of (?:which|whom)": "a sentence of its own",
    r"whose [^.;:]*\b(?:whose|which)": "two sentences",
    r"to and fro": "keeps changing",
    r"lets? go|letting go": "shed",
    r"turn(?:s|ed)? away": "reject",
    r"puts? back": "requeue",
    r"(?:gives?|gave|given|giving) up(?! new)": "abandon",
    r"hears?|heard": "receive, recognise",
    r"amid|shall": "within, will",
}
PAGES = sorted(
    page
    for pattern in ("*.md", "docs/*.md", "docs/adr/*.md", "*/README.md", "kaption/*/README.md")
    for page in ROOT.glob(pattern)
    if page.name not in {"CHANGELOG.md", "terms.md"}
)


def helps(command: click.Command, name: str) -> Iterator[tuple[str, str]]:
    """The help of a command and of all below it, by their names."""
    context = click.Context(command, info_name=name)
    yield name, command.get_help(context)
    if isinstance(command, click.Group):
        for below in command.list_commands(context):
            found = command.get_command(context, below)
            assert found is not None
            yield from helps(found, f"{name} {below}")


def prose(page: Path) -> str:
    """The page without code, links' targets and quoted words."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"^ {4}.*$", "", text, flags=re.MULTILINE)
    return re.sub(r"`[^`\n]*`|\]\([^)\s]*\)|\"[^\"\n]*\"", "", text)


TEXTS = {str(page.relative_to(ROOT)): prose(page) for page in PAGES} | dict(helps(cli, "kaption"))


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_has_no_pattern_that_is_hard_to_read(name: str) -> None:
    found = {
        match[0]: instead
        for pattern, instead in HARD.items()
        for match in re.finditer(rf"\b(?:{pattern})\b", re.sub(r"\s+", " ", TEXTS[name]), re.IGNORECASE)
    }
    assert not found


def test_the_terms_define_each_word_once() -> None:
    text = (ROOT / "docs" / "terms.md").read_text()
    defined = [
        word
        for row in re.findall(r"^\| (\*\*.+?) \|", text, re.MULTILINE)
        for word in re.findall(r"\*\*(.+?)\*\*", row)
    ]
    assert len(defined) == len(set(defined)) > 50
    meanings = re.findall(r"^\| \*\*.+? \| (.+) \|$", text, re.MULTILINE)
    assert [meaning for meaning in meanings if not meaning.endswith(".")] == []
