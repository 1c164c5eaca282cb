"""The ConfigMap: the pool document and the profile, as gateways and workers read them at their start.

The document leaves out what neither reads: pod templates, and the mix, which arrives as a plan.
"""

import yaml

from t2i_api.names import API_VERSION, GATEWAY, KIND, config_name
from t2i_operator.children.inputs import Inputs
from t2i_operator.manifests import Manifest, child


def render_config(inputs: Inputs) -> Manifest:
    """See the module."""
    data = {"pool.yaml": yaml.safe_dump(_document(inputs), sort_keys=True), "profile.json": inputs.profile}
    return child(inputs.ref, GATEWAY, "v1", "ConfigMap", {"name": config_name(inputs.ref.name), "data": data})


def _document(inputs: Inputs) -> Manifest:
    spec = inputs.spec.model_dump(by_alias=True, mode="json", exclude_none=True, exclude={"mix": True})
    if not spec["model"]["embedder"]:
        del spec["model"]["embedder"]  # as before there was the field: pods of an older version can still read it
    for part in (spec["gateway"], *spec["workerGroups"]):
        part.pop("template", None)
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": inputs.ref.name}, "spec": spec}


def gateway_facts(inputs: Inputs) -> Manifest:
    """What a gateway cannot take in while it runs."""
    spec = _document(inputs)["spec"]
    spec["security"].pop("metricsNamespaces", None)  # the NetworkPolicy's alone
    return {"profile": inputs.profile, **{key: value for key, value in spec.items() if key != "workerGroups"}}
