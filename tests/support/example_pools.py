"""The pools of examples/ and what the operator makes of them."""

from pathlib import Path
from typing import Any

import yaml

from t2i_api.parse import parse_pool
from t2i_operator.manifests import Images, Inputs, render_children
from t2i_operator.manifests.child import Manifest, PoolRef

EXAMPLES = Path(__file__).parents[2] / "examples"
UID = "00000000-0000-0000-0000-000000000001"


def documents(path: Path) -> list[dict[str, Any]]:
    """Of an example file."""
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def children_of(name: str, namespace: str) -> tuple[Manifest, ...]:
    """What the operator makes of the pool in a file, if that is applied to a namespace."""
    (pool,) = (one for one in documents(EXAMPLES / name) if one["kind"] == "T2IServingPool")
    parsed = parse_pool(yaml.safe_dump(pool))
    ref = PoolRef(namespace, parsed.metadata.name, UID)
    return render_children(Inputs(ref, parsed.spec, "{}", Images("gateway:1", "worker:1")))
