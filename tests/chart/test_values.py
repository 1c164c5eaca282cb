"""Values: the schema refuses what cannot work and names it; the README's table lists what there is, no more."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from helm_chart import CHART, Helm, HelmError

VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
WHOLE = {"operator.resources", "valkey.resources"}  # the table says "see values.yaml"

#: What is wrong -> the setting, and what the message must name.
REFUSED = {
    "a misspelt name": ("operator.replica=2", "operator.*replica"),
    "a value at a wrong place": ("replicas=2", "replicas"),
    "no replica": ("operator.replicas=0", "operator.replicas.*minimum"),
    "a count in words": ("operator.replicas=two", "operator.replicas.*integer"),
    "the tag latest": ("operator.image.tag=latest", "operator.image.tag"),
    "a tag in the repository": ("worker.image.repository=t2i/worker:1", "worker.image.repository"),
    "an address of the web for a registry": ("imageRegistry=https://registry.example.com", "imageRegistry.*pattern"),
    "a short digest": ("gateway.image.digest=sha256:abc", "gateway.image.digest"),
    "an unknown pull policy": ("poolImagePullPolicy=Sometimes", "poolImagePullPolicy.*Always"),
    "root": ("runAsUser=0", "runAsUser.*minimum"),
    "an unknown log level": ("operator.logLevel=trace", "operator.logLevel.*debug"),
    "a port out of range": ("networkPolicy.apiServerPorts={70000}", "networkPolicy.apiServerPorts.*maximum"),
    "no port to the API server": ("networkPolicy.apiServerPorts=null", "networkPolicy.apiServerPorts|apiServerPorts"),
    "a namespace that cannot be": ("operator.watchNamespaces={Red}", "operator.watchNamespaces"),
    "a budget that blocks every drain": ("operator.podDisruptionBudget.maxUnavailable=0", "maxUnavailable.*minimum"),
    "a store by another protocol": ("externalStoreUrl=http://store", "externalStoreUrl"),
    "an account to be found, without its name": ("serviceAccount.create=false", "serviceAccount.name: name the"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_bad_value_refused_by_name(helm: Helm, what: str) -> None:
    """Before anything reaches the cluster, with the path of the value and the rule."""
    setting, message = REFUSED[what]
    with pytest.raises(HelmError) as refused:
        helm.template("--set", setting)
    text = str(refused.value).replace("/", ".")
    assert re.search(message, text, re.DOTALL), text


def leaves(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted path -> default; empty mappings and the examples in WHOLE are leaves."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        path = f"{prefix}{key}"
        nested = isinstance(value, dict) and value and path not in WHOLE and not path.endswith(".labels")
        found |= leaves(value, f"{path}.") if nested else {path: value}
    return found


def test_readme_lists_every_value_with_its_default() -> None:
    """A table that lies is worse than none."""
    rows = dict(re.findall(r"^\| `([\w.]+)` \| (.*?) \|", (CHART / "README.md").read_text(), re.MULTILINE))
    defaults = {
        path: "see `values.yaml`" if path in WHOLE else f"`{_written(value)}`" for path, value in leaves(VALUES).items()
    }
    assert rows == defaults


def _written(value: Any) -> str:
    return value if isinstance(value, str) and value else json.dumps(value, separators=(",", ":"))


def schema_paths(schema: dict[str, Any], definitions: dict[str, Any], prefix: str = "") -> set[str]:
    """Dotted paths of the properties the schema knows."""
    found: set[str] = set()
    for key, part in schema.get("properties", {}).items():
        target = definitions[part["$ref"].rpartition("/")[2]] if "$ref" in part else part
        inner = schema_paths(target, definitions, f"{prefix}{key}.")
        found |= inner or {f"{prefix}{key}"}
    return found


def test_schema_and_defaults_know_the_same_values() -> None:
    """A value without a rule could be misspelt in silence; a rule without a value is dead."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    known = schema_paths(schema, schema["$defs"]) - {"global"}
    assert known == set(leaves(VALUES))


def test_schema_is_closed_everywhere() -> None:
    """Each object with named properties refuses others."""

    def check(part: Any, where: str) -> None:
        if isinstance(part, dict):
            if isinstance(part.get("properties"), dict):
                assert part.get("additionalProperties") is False, where
            for key, value in part.items():
                check(value, f"{where}/{key}")

    check(json.loads((CHART / "values.schema.json").read_text()), str(Path("#")))


@pytest.mark.parametrize(
    "registry", ["", "registry.example.com", "localhost:5000", "registry.example.com:443/mirror/a/"]
)
def test_registries_stand_before_every_image(helm: Helm, registry: str) -> None:
    """A name, a port and a path are all that an image's name may begin with."""
    images = re.findall(r"image: \"?(\S+?)\"?\n", helm.template("--set", f"imageRegistry={registry}"))
    assert images
    assert all(
        image.startswith(f"{registry.rstrip('/')}/t2i-serving/" if registry else "t2i-serving/") for image in images
    )
