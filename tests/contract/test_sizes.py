"""No file of ours has more than 400 lines, and no class more than 250: what grows beyond is parted along its states."""

import ast
from typing import Final as Const

import pytest

from tests.support.packages import FOLDERS, ROOT

PLACES: Const = (*FOLDERS, "bench", "tools", "tests")
MOST_LINES: Const = 400
MOST_CLASS_LINES: Const = 250


def too_long(source: str) -> list[str]:
    """What is too long in a file: itself, and its classes by name."""
    lines = len(source.splitlines())
    found = [f"{lines} lines"] if lines > MOST_LINES else []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef) and node.end_lineno:
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            if (length := node.end_lineno - first + 1) > MOST_CLASS_LINES:
                found.append(f"class {node.name}: {length} lines")
    return found


@pytest.mark.parametrize("folder", PLACES)
def test_files_and_classes_are_small(folder: str) -> None:
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    found = {str(file.relative_to(ROOT)): long for file in files if (long := too_long(file.read_text()))}
    assert not found


def test_what_is_too_long_is_found() -> None:
    body = "    x = 1\n" * MOST_CLASS_LINES
    assert too_long(f"class A:\n{body}") == ["class A: 251 lines"]
    assert too_long(f"class A:\n{body[10:]}") == []
    assert too_long("x = 1\n" * (MOST_LINES + 1)) == ["401 lines"]
