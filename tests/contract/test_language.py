"""Pages, help texts, docstrings and comments use the words of docs/terms.md, and none that make a sentence hard to read."""

import ast
import io
import re
import tokenize
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
    r"so (?:many|much|long)(?! as)": "the number's name",
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
#: Code whose docstrings and comments are held to the same words. A folder joins once its prose is plain.
PLAIN = sorted(
    file
    for pattern in (
        "kaption/*.py",
        "kaption/cli/**/*.py",
        "kaption/client/*.py",
        "kaption/service/*.py",
        "kaption/adapters/*.py",
        "kaption/adapters/kafka/*.py",
        "kaption/adapters/media/*.py",
        "kaption/adapters/models/*.py",
        "kaption/adapters/processes/*.py",
        "kaption/adapters/store/*.py",
        "kaption/domain/*.py",
        "kaption/domain/decoding/*.py",
        "kaption/domain/intake/*.py",
        "kaption/domain/pool/*.py",
        "kaption/domain/reading/*.py",
        "kaption/domain/redaction/*.py",
        "kaption/domain/run/*.py",
        "kaption/testing/*.py",
        "gpu_service/kaption_gpu/*.py",
        "gpu_service/kaption_gpu/engine/**/*.py",
        "gpu_service/kaption_gpu/lanes/*.py",
        "streams/kaption_streams/*.py",
        "schemas/**/*.py",
        "bench/**/*.py",
        "demo/*.py",
        "tools/*.py",
    )
    for file in ROOT.glob(pattern)
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


def docstrings(file: Path) -> list[str]:
    """The docstrings of a module, its own first, and of its classes and functions."""
    definitions = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = (node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, definitions))
    return [text for node in nodes if (text := ast.get_docstring(node))]


def said(file: Path) -> str:
    """The docstrings and comments of a file, without code, names of arguments and quoted words."""
    tokens = tokenize.generate_tokens(io.StringIO(file.read_text()).readline)
    comments = [token.string for token in tokens if token.type == tokenize.COMMENT]
    text = "\n".join((*docstrings(file), *comments))
    return re.sub(r"``[^`\n]*``|`[^`\n]*`|\"[^\"\n]*\"|^ +\w+: ", "", text, flags=re.MULTILINE)


TEXTS = (
    {str(page.relative_to(ROOT)): prose(page) for page in PAGES}
    | {str(file.relative_to(ROOT)): said(file) for file in PLAIN}
    | dict(helps(cli, "kaption"))
)


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_has_no_pattern_that_is_hard_to_read(name: str) -> None:
    found = {
        match[0]: instead
        for pattern, instead in HARD.items()
        for match in re.finditer(rf"\b(?:{pattern})\b", re.sub(r"\s+", " ", TEXTS[name]), re.IGNORECASE)
    }
    assert not found


@pytest.mark.parametrize("file", PLAIN, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_docstring_begins_with_what_the_code_does(file: Path) -> None:
    module, *others = docstrings(file)
    first = re.split(r"\.(?:\s|$)", module, maxsplit=1)[0]
    assert ";" not in first
    assert not re.match(r"(?:What|Whether|How|Where|Which|Who)\b", first)
    assert [text for text in others if re.match(r"(?:What|How|Where|Which|Who)\b", text)] == []


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
