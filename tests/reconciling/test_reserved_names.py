"""Whatever the operator gives a pod, a pod template cannot take its name: it would replace the operator's."""

from typing import Any

import pytest

from operator_world import pool_document
from t2i_api.parse import read_pool
from t2i_api.template_rules import GATEWAY_OWNED, OWNED_VOLUMES, WORKER_OWNED
from t2i_operator.manifests import Images, Inputs
from t2i_operator.manifests.child import PoolRef
from t2i_operator.manifests.gateway import gateway_pod
from t2i_operator.manifests.workers import worker_pod

OPEN = {"tmp", "models", "latents"}  # what an owner may put something else under
EVERYTHING: dict[str, Any] = {
    "security": {
        "clientAuthentication": "Token",
        "gatewayTlsSecretName": "g",
        "tokensSecretName": "t",
        "gatewayClientTlsSecretName": "c",
        "workerTlsSecretName": "w",
    },
    "cache": {"scope": "Tenant", "storeUrl": "rediss://valkey:6379", "storeSecretRef": {"name": "s"}},
    "safety": {place: {"url": "https://classifier/", "secretName": place} for place in ("prompt", "image")},
    "provenance": {"c2pa": {"secretName": "signer"}},
    "gateway": {"replicas": 1, "results": {"url": "s3://images", "secretName": "bucket"}},
}


@pytest.mark.parametrize("component", ["gateway", "worker"])
def test_every_volume_and_flag_of_the_operators_is_reserved(component: str) -> None:
    """In a pool that names every Secret there is."""
    spec = read_pool(pool_document(**EVERYTHING)).spec
    inputs = Inputs(PoolRef("ns", "p", "uid-1"), spec, "{}", Images("g@x", "w@y"))
    pod = gateway_pod(inputs) if component == "gateway" else worker_pod(inputs, spec.worker_groups[0])
    owned = GATEWAY_OWNED if component == "gateway" else WORKER_OWNED
    volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
    flags = {argument.partition("=")[0] for argument in pod["spec"]["containers"][0]["args"]}
    assert volumes - OPEN <= {*OWNED_VOLUMES}
    assert flags <= {*owned.flags}
