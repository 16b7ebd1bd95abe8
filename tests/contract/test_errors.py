"""Errors stand in one tree, so that a caller knows by the class what to do."""

import ast
from pathlib import Path

from kaption_schemas import errors
from kaption_schemas.errors import KaptionError

ROOT = Path(__file__).resolve().parents[2]
#: It carries why an executor was replaced, and never leaves the pool's engine.
ENGINE = {"ReplacedError"}


def test_every_error_is_in_the_tree() -> None:
    classes = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]
    assert all(issubclass(one, KaptionError) for one in classes)
    assert all(one.__name__ in (errors.__doc__ or "") for one in classes)


def test_no_other_module_defines_one() -> None:
    found = set()
    for folder in ("kaption", "streams", "gpu_service", "schemas"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and path.name != "errors.py":
                    bases = {ast.unparse(base) for base in node.bases}
                    if any(base == "Exception" or base.endswith("Error") for base in bases):
                        found.add(node.name)
    assert found == ENGINE
