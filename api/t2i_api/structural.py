"""From a pydantic schema to the structural schema of a custom resource.

Kubernetes wants every type spelled out in place: no references, no titles, no `anyOf` for optional fields, no
`additionalProperties: false` (unknown fields are pruned or refused anyway). What it understands is kept: bounds,
patterns, enums, defaults, descriptions. Anything else is an error here rather than a silent loss.
"""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from pydantic import BaseModel

Schema = dict[str, Any]
KEPT = {
    "type", "description", "default", "enum", "format", "pattern", "required",
    "minimum", "maximum", "multipleOf", "minLength", "maxLength", "minItems", "maxItems",
}  # fmt: skip
DROPPED = {"title", "$defs"}


class SchemaError(ValueError):
    """A class uses something that a structural schema cannot say; the message names where."""


def structural_schema(model: type[BaseModel]) -> Schema:
    """The structural schema of a class, by alias.

    Raises:
        SchemaError: see there.
    """
    schema = model.model_json_schema(by_alias=True)
    return _convert(schema, schema.get("$defs", {}), model.__name__)


def _convert(node: Mapping[str, Any], parts: Mapping[str, Any], where: str) -> Schema:
    node = _resolve(node, parts, where)
    unknown = set(node) - KEPT - DROPPED - {"properties", "items", "additionalProperties"}
    if isinstance(node.get("additionalProperties"), Mapping):
        unknown.add("additionalProperties")  # a map of one type: nothing here needs it yet
    if unknown:
        raise SchemaError(f"{where}: a structural schema cannot say {sorted(unknown)}")
    out: Schema = {key: deepcopy(node[key]) for key in node if key in KEPT}  # shared parts would be YAML's anchors
    if "description" in out:
        out["description"] = " ".join(str(out["description"]).split())
    if node.get("type") == "object" and ("properties" not in node or node.get("additionalProperties") is True):
        out["x-kubernetes-preserve-unknown-fields"] = True
    if "properties" in node:
        out["properties"] = {
            name: _convert(child, parts, f"{where}.{name}") for name, child in node["properties"].items()
        }
    if "items" in node:
        out["items"] = _convert(node["items"], parts, f"{where}[]")
    return out


def _resolve(node: Mapping[str, Any], parts: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """Put a reference's target in its place; what the field says itself (description, default) wins. `X | None` is an
    optional X: its default null is "left out"."""
    if "anyOf" in node:
        options = [option for option in node["anyOf"] if option.get("type") != "null"]
        if len(options) != 1:
            raise SchemaError(f"{where}: a structural schema cannot say a choice of {len(options)} types")
        rest = {key: value for key, value in node.items() if key not in ("anyOf", "default")}
        return _resolve({**options[0], **rest}, parts, where)
    if "$ref" in node:
        target = parts[node["$ref"].rpartition("/")[2]]
        rest = {key: value for key, value in node.items() if key != "$ref"}
        if isinstance(rest.get("default"), Mapping):  # null is "left out" inside it, too
            rest["default"] = _without_nulls(rest["default"])
        return _resolve({**target, **rest}, parts, where)
    if "const" in node:
        rest = {key: value for key, value in node.items() if key != "const"}
        return {**rest, "enum": [node["const"]]}
    return node


def _without_nulls(default: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _without_nulls(value) if isinstance(value, Mapping) else value
        for key, value in default.items()
        if value is not None
    }
