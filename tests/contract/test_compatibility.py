"""Version 1 of the records stays readable: today's models and schemas accept every golden record.

Never edit a golden file. A change that turns these tests red needs a new version of the record, next to the old one.
"""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from kaption_schemas.asyncapi import BODIES, json_schemas
from kaption_schemas.headers import data_schema
from kaption_schemas.topics import FINAL, PARTIAL, Type
from tests.support.compatibility import breaks

GOLDEN = Path(__file__).resolve().parents[2] / "schemas" / "golden" / "1"
EXAMPLES = sorted(GOLDEN.glob("*.json"))
WITH_BODY = [path for path in EXAMPLES if "body" in json.loads(path.read_text())]
# Readers of transcripts are not ours to upgrade, so an old reader must also take what is written today.
TRANSCRIPTS = (*PARTIAL.types, *FINAL.types)


def load(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(path.read_text())
    return loaded


def golden_schema(kind: str) -> dict[str, Any]:
    return load(GOLDEN / "schemas" / f"{kind}.json")


def test_every_type_with_a_public_meaning_has_a_golden_record() -> None:
    kinds = {load(path)["headers"]["ce_type"] for path in EXAMPLES}
    assert kinds == set(Type) - {Type.SNAPSHOT, Type.CLAIM}
    assert {path.stem for path in (GOLDEN / "schemas").glob("*.json")} == set(BODIES)


@pytest.mark.parametrize("path", WITH_BODY, ids=lambda path: path.stem)
def test_a_golden_record_parses_and_serialises_equal(path: Path) -> None:
    record = load(path)
    kind = Type(record["headers"]["ce_type"])
    parsed = BODIES[kind].model_validate_json(json.dumps(record["body"]))
    assert json.loads(parsed.model_dump_json(exclude_unset=True)) == record["body"]
    jsonschema.validate(record["body"], json_schemas()[kind])


@pytest.mark.parametrize("path", WITH_BODY, ids=lambda path: path.stem)
def test_a_golden_record_uses_every_field_of_its_version(path: Path) -> None:
    record = load(path)
    assert set(record["body"]) == set(golden_schema(record["headers"]["ce_type"])["properties"])


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_a_golden_record_has_the_headers_of_the_binding(path: Path) -> None:
    headers = load(path)["headers"]
    assert headers["ce_specversion"] == "1.0"
    assert headers["ce_dataschema"] == data_schema(Type(headers["ce_type"]))


@pytest.mark.parametrize("kind", sorted(BODIES))
def test_todays_reader_takes_what_version_1_allows(kind: Type) -> None:
    assert breaks(reader=json_schemas()[kind], writer=golden_schema(kind)) == []


@pytest.mark.parametrize("kind", TRANSCRIPTS)
def test_a_reader_of_version_1_takes_what_is_written_today(kind: Type) -> None:
    assert breaks(reader=golden_schema(kind), writer=json_schemas()[kind]) == []


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


@pytest.mark.parametrize(
    ("reader", "writer", "found"),
    [
        (_object(a={"type": "string"}), _object(a={"type": "string"}, b={"type": "integer"}), []),
        (_object(a={"type": "string"}, b={"type": "integer"}), _object(a={"type": "string"}), ["$.b: required"]),
        (_object() | {"additionalProperties": False}, _object(a={"type": "string"}), ["$.a: unknown"]),
        (_object(a={"type": "string"}), _object(a={"type": "integer"}), ["$.a: type integer was string"]),
        (_object(a={"enum": ["x"]}), _object(a={"enum": ["x", "y"]}), ["$.a: value 'y'"]),
        (_object(a={"enum": ["x"], "title": "Reason"}), _object(a={"enum": ["x", "y"]}), []),
        ({"type": "integer", "maximum": 5}, {"type": "integer", "maximum": 6}, ["$: maximum"]),
        ({"type": "integer", "maximum": 6}, {"type": "integer", "maximum": 5}, []),
        ({"type": "string", "minLength": 1}, {"type": "string"}, ["$: minLength"]),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, {"type": "string"}, []),
        ({"type": "string"}, {"anyOf": [{"type": "string"}, {"type": "null"}]}, ["$: type null was string"]),
        ({"type": "array", "items": {"type": "string"}}, {"type": "array", "items": {"type": "null"}},
         ["$.items: type null was string"]),
    ],
)  # fmt: skip
def test_the_comparison_sees_what_breaks(reader: dict[str, Any], writer: dict[str, Any], found: list[str]) -> None:
    assert breaks(reader, writer) == found
