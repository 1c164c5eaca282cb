"""The custom resource definition as a document: the generated schema, the rules, and what `kubectl get` shows."""

import sys
from typing import Any

import yaml

from t2i_api.names import GROUP, KIND, PLURAL, VERSION
from t2i_api.pool import PoolSpec
from t2i_api.rule import PoolRule
from t2i_api.rules import LIST_KEYS, RULES
from t2i_api.status import PoolStatus
from t2i_api.structural import Schema, structural_schema

HEADER = "# Generated from api/t2i_api by `make crds`: edit there, not here.\n"


def _condition(field: str) -> str:
    return f'.status.conditions[?(@.type=="Ready")].{field}'


#: name, type, JSON path, priority (1 = only with -o wide), description
COLUMNS = (
    ("Ready", "string", _condition("status"), 0, "Whether the pool serves as it should."),
    ("Reason", "string", _condition("reason"), 0, "Why, or why not."),
    ("Workers", "integer", ".status.workers", 0, "Workers of all groups."),
    ("Mix", "string", ".status.mix", 0, "Workers by level: WORKERS x [MODEL:] SKIPPED STEPS [/ SHORTER SCHEDULE]."),
    ("Quality", "integer", ".status.qualityPercent", 0, "Expected quality in percent of exact."),
    ("Age", "date", ".metadata.creationTimestamp", 0, "Since when the pool exists."),
    ("Ready-Workers", "integer", ".status.readyWorkers", 1, "Workers that accept requests."),
    ("Mode", "string", ".spec.mix.mode", 1, "Whether the mix is planned or fixed."),
    ("Measured", "integer", ".status.measuredQualityPercent", 1, "Quality by recent audits in percent of exact."),
    ("Plan", "integer", ".status.plan.revision", 1, "Revision of the running plan."),
    ("Model", "string", ".spec.model.source", 1, "The pool's own model, which quality is measured against."),
    ("Message", "string", _condition("message"), 1, "The reason in a sentence."),
)


def crd_document() -> dict[str, Any]:
    names = {
        "kind": KIND,
        "listKind": f"{KIND}List",
        "plural": PLURAL,
        "singular": KIND.lower(),
        "shortNames": ["t2ip"],
        "categories": ["all", "t2iserving"],
    }
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": [_column(*column) for column in COLUMNS],
        "schema": {"openAPIV3Schema": pool_schema()},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {"group": GROUP, "scope": "Namespaced", "names": names, "versions": [version]},
    }


def render_crd() -> str:
    """The document as YAML, the same bytes every time."""
    return HEADER + yaml.safe_dump(crd_document(), sort_keys=False, width=120, allow_unicode=True)


def pool_schema() -> Schema:
    """The structural schema of a pool, rules and list keys included."""
    root: Schema = {
        "description": "A fixed pool of warm text-to-image workers that bends quality, as little as possible, before "
        "it breaks its latency target.",
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": "Version of this schema of the object."},
            "kind": {"type": "string", "description": f"Always {KIND}."},
            "metadata": {"type": "object"},
            "spec": structural_schema(PoolSpec),
            "status": structural_schema(PoolStatus),
        },
    }
    for path, keys in LIST_KEYS.items():
        node = _at(root, path)
        node["x-kubernetes-list-type"] = "map" if keys else "set"
        if keys:
            node["x-kubernetes-list-map-keys"] = list(keys)
    _refuse_fractions(root["properties"]["spec"])
    for path, rules in RULES.items():
        _at(root, path)["x-kubernetes-validations"] = [_validation(rule) for rule in rules]
    return root


def _refuse_fractions(node: Schema) -> None:
    """By type alone the server stores 5.0 as it came. Rules about that field then fail at the next change of another
    one: better refused when it is written."""
    if node["type"] == "integer":
        whole = {"rule": f"self >= {node['minimum']}", "message": "must be written without a fraction: 5, not 5.0"}
        node["x-kubernetes-validations"] = [whole]
    for child in (*node.get("properties", {}).values(), *([node["items"]] if "items" in node else ())):
        _refuse_fractions(child)


def _at(root: Schema, path: str) -> Schema:
    node = root
    for part in path.split(".") if path else ():
        node = node["properties"][part.removesuffix("[]")]
        if part.endswith("[]"):
            node = node["items"]
    return node


def _validation(rule: PoolRule[Any]) -> Schema:
    said = {
        "rule": rule.cel,
        "message": rule.message,
        "messageExpression": rule.message_expression,
        "fieldPath": rule.field,
    }
    return {key: value for key, value in said.items() if value}


def _column(name: str, kind: str, path: str, priority: int, description: str) -> dict[str, Any]:
    column = {"name": name, "type": kind, "jsonPath": path, "priority": priority, "description": description}
    return {key: value for key, value in column.items() if value != 0}


if __name__ == "__main__":
    sys.stdout.write(render_crd())
