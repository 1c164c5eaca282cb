"""Changes of a pool that somebody might make by mistake or on purpose, generated from the resource's schema.

For every field of `spec`: delete, null, empty, bounds and just past them, every enum value, wrong types, odd text,
unknown fields. Lists are also made too long, too short, repeated and reversed. Nothing here knows what any field means.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from t2i_testing_kit.crd.documents import REMOVED, Document, changed

WRONG_TYPES: dict[str, object] = {
    "text": "text",
    "number": 7,
    "fraction": 1.5,
    "truth": True,
    "list": [],
    "object": {},
}
FITTING = {"string": "text", "integer": "number", "boolean": "truth", "array": "list", "object": "object"}
ODD_TEXTS = (
    " ",
    "-",
    "a.b",
    "Ünïcödé",
    "日本語",
    "🖼️",
    "\u202eright to left",
    "zero\u200bwidth",
    "NUL\0",
    "line\nbreak",
    "e\u0301",
    "builtin://🖼️",
    "hf://",
    "builtin://a\nb",
)
HUGE = (2**31, 2**53 + 1, 2**63, 2**64, -(2**63) - 1)


@dataclass(frozen=True, slots=True)
class Mutation:
    """One change of one field: its path, what kind of change, and the value (REMOVED = deleted)."""

    path: str
    kind: str
    value: object

    def of(self, document: Document) -> Document:
        """The changed document."""
        return changed(document, {self.path: self.value})

    def __str__(self) -> str:
        shown = "" if self.value is REMOVED else f" {self.value!r:.60}"
        return f"{self.path} {self.kind}{shown}"


class SchemaField(NamedTuple):
    """A field's place, its schema, and its value in a document."""

    path: str
    node: dict[str, Any]
    value: object


def mutations(schema: dict[str, Any], document: Document) -> Iterator[Mutation]:
    """Every change of the document's `spec` that changes it."""
    spec_schema = schema["properties"]["spec"]
    for path, node, value in _fields(spec_schema, document["spec"], "spec"):
        for mutation in _of_field(path, node, value):
            if mutation.of(document) != document:
                yield mutation


def _fields(node: dict[str, Any], value: object, path: str) -> Iterator[SchemaField]:
    """The schema's fields as far as the document has their parents; of lists the first and the last item."""
    yield SchemaField(path, node, value)
    if isinstance(value, dict):
        for name, child in node.get("properties", {}).items():
            yield from _fields(child, value.get(name, REMOVED), f"{path}.{name}")
    elif isinstance(value, list) and value:
        for index in sorted({0, len(value) - 1}):
            yield from _fields(node["items"], value[index], f"{path}.{index}")


def _of_field(path: str, node: dict[str, Any], value: object) -> Iterator[Mutation]:
    yield Mutation(path, "delete", REMOVED)
    yield Mutation(path, "null", None)
    for name, wrong in WRONG_TYPES.items():
        if name != FITTING[node["type"]]:
            yield Mutation(path, f"type {name}", wrong)
    match node["type"]:
        case "integer":
            yield from _of_integer(path, node)
        case "boolean":
            yield from (Mutation(path, "enum", choice) for choice in (True, False))
        case "string":
            yield from _of_string(path, node)
        case "array":
            yield from _of_list(path, node, value)
        case "object":
            yield from _of_object(path, value)


def _of_integer(path: str, node: dict[str, Any]) -> Iterator[Mutation]:
    low, high = node["minimum"], node["maximum"]
    step = node.get("multipleOf", 1)
    yield Mutation(path, "empty", 0)
    yield Mutation(path, "min", low)
    yield Mutation(path, "max", high)
    yield Mutation(path, "below min", low - step)
    yield Mutation(path, "above max", high + step)
    yield Mutation(path, "change", (low + high) // 2 // step * step)
    yield Mutation(path, "off step", low + 1)
    yield Mutation(path, "small", low + step)
    yield Mutation(path, "whole fraction", float(low + step))
    for huge in HUGE:
        yield Mutation(path, "huge", huge)


def _of_string(path: str, node: dict[str, Any]) -> Iterator[Mutation]:
    yield Mutation(path, "empty", "")
    for choice in node.get("enum", ()):
        yield Mutation(path, "enum", choice)
        yield Mutation(path, "enum case", choice.swapcase())
    for text in ODD_TEXTS:
        yield Mutation(path, "unicode" if not text.isascii() else "odd text", text)
    if "maxLength" in node:
        for filler in ("a", "é"):
            yield Mutation(path, "max", filler * node["maxLength"])
            yield Mutation(path, "above max", filler * (node["maxLength"] + 1))
    if "pattern" in node:
        yield Mutation(path, "upper case", "ABC://ABC")
        yield Mutation(path, "change", "abc")
        yield Mutation(path, "reserved", "gateway")


def _of_list(path: str, node: dict[str, Any], value: object) -> Iterator[Mutation]:
    items = value if isinstance(value, list) else []
    yield Mutation(path, "empty", [])
    yield Mutation(path, "empty item", [*items, {}])
    yield Mutation(path, "null item", [*items, None])
    yield Mutation(path, "text item", [*items, "text"])
    yield Mutation(path, "reversed", items[::-1])
    if items:
        yield Mutation(path, "last dropped", items[:-1])
        yield Mutation(path, "first dropped", items[1:])
        yield Mutation(path, "repeated", [*items, copy.deepcopy(items[0])])
        for kind, count in (("max", node["maxItems"]), ("above max", node["maxItems"] + 1)):
            yield Mutation(path, kind, [_varied(items[-1], number) for number in range(count)])


def _varied(item: dict[str, Any] | str, number: int) -> dict[str, Any] | str:
    """A copy that differs from others with another number in its name or its skipped steps."""
    if isinstance(item, str):
        return f"{item[:40]}-{number}"
    copied = copy.deepcopy(item)
    if "name" in copied:
        copied["name"] = f"{copied['name'][:40]}-{number}"
    if "skippedSteps" in copied:
        copied["skippedSteps"] = number
    return copied


def _of_object(path: str, value: object) -> Iterator[Mutation]:
    yield Mutation(path, "empty", {})
    if isinstance(value, dict):
        yield Mutation(f"{path}.unknownField", "unknown field", 1)
        yield Mutation(f"{path}.unknownField", "unknown null", None)
