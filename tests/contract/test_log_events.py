"""Log events are names that stay the same, so that alerts and queries can be written for them."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LEVELS = {"debug", "info", "warning", "error", "exception", "critical", "log"}


def events(folder: str) -> list[tuple[str, str]]:
    """Where a service logs, and what it names the event."""
    out = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LEVELS:
                owner = ast.unparse(node.func.value)
                if owner == "log" or owner.startswith("logging.getLogger"):
                    event = node.args[1 if node.func.attr == "log" else 0]
                    out.append((f"{path.relative_to(ROOT)}:{node.lineno}", ast.unparse(event)))
    return out


@pytest.mark.parametrize("folder", ["kaption/adapters", "kaption/service", "streams", "gpu_service"])
def test_a_service_names_its_events_in_snake_case(folder: str) -> None:
    wrong = [(where, event) for where, event in events(folder) if not re.fullmatch(r"'[a-z]+(_[a-z0-9]+)+'", event)]
    assert not wrong


@pytest.mark.parametrize("folder", ["kaption", "streams", "gpu_service"])
def test_no_method_of_a_log_travels_under_another_name(folder: str) -> None:
    """Its events would not be looked at here."""
    found = [str(path) for path in (ROOT / folder).rglob("*.py") if re.search(r"=.*\blog\.\w+ ", path.read_text())]
    assert not found
