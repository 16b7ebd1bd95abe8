"""Whether records written under one JSON Schema can be read under another: the part of JSON Schema that our records use."""

from collections.abc import Iterator
from typing import Any

Schema = dict[str, Any]
#: Lower is narrower for the first set, higher for the second.
_UPPER = ("maximum", "maxLength", "maxItems", "maxProperties")
_LOWER = ("minimum", "minLength", "minItems", "minProperties")
#: Sets of codes that may grow: a reader takes a code that it does not know as text.
OPEN = frozenset({"Reason"})


def breaks(reader: Schema, writer: Schema) -> list[str]:
    """What documents valid under ``writer`` may hold that ``reader`` refuses, as ``path: what``; empty when nothing."""
    return list(_Pair(reader, writer).walk(reader, writer, "$"))


class _Pair:
    def __init__(self, reader: Schema, writer: Schema) -> None:
        self.reader, self.writer = reader.get("$defs", {}), writer.get("$defs", {})

    def walk(self, reader: Schema, writer: Schema, path: str) -> Iterator[str]:
        readers = self._alternatives(reader, self.reader)
        for written in self._alternatives(writer, self.writer):
            found = [list(self._one(read, written, path)) for read in readers]
            if all(found):
                yield from min(found, key=len)

    def _alternatives(self, schema: Schema, defs: Schema) -> list[Schema]:
        if "$ref" in schema:
            return self._alternatives(defs[schema["$ref"].rsplit("/", 1)[1]], defs)
        if "anyOf" in schema:
            return [leaf for part in schema["anyOf"] for leaf in self._alternatives(part, defs)]
        return [schema]

    def _one(self, reader: Schema, writer: Schema, path: str) -> Iterator[str]:
        kinds = (reader.get("type"), writer.get("type"))
        if kinds[0] not in (None, kinds[1]) and kinds != ("number", "integer"):
            yield f"{path}: type {kinds[1]} was {kinds[0]}"
            return
        if "enum" in reader and reader.get("title") not in OPEN:
            missing = [value for value in writer.get("enum", ["anything"]) if value not in reader["enum"]]
            yield from (f"{path}: value {value!r}" for value in missing)
        if reader.get("pattern", writer.get("pattern")) != writer.get("pattern"):
            yield f"{path}: pattern"
        for name in (*_UPPER, *_LOWER):
            if name in reader and not _within(name, reader[name], writer.get(name)):
                yield f"{path}: {name}"
        yield from self._fields(reader, writer, path)
        for name in ("items", "additionalProperties"):
            if isinstance(reader.get(name), dict) and isinstance(writer.get(name), dict):
                yield from self.walk(reader[name], writer[name], f"{path}.{name}")

    def _fields(self, reader: Schema, writer: Schema, path: str) -> Iterator[str]:
        known, written = reader.get("properties", {}), writer.get("properties", {})
        for name in set(reader.get("required", ())) - set(writer.get("required", ())):
            yield f"{path}.{name}: required"
        for name, schema in written.items():
            if name in known:
                yield from self.walk(known[name], schema, f"{path}.{name}")
            elif reader.get("additionalProperties") is False:
                yield f"{path}.{name}: unknown"


def _within(name: str, limit: float, value: float | None) -> bool:
    return value is not None and (value <= limit if name in _UPPER else value >= limit)
