"""What a bucket for images needs in a cluster: its Secret mounted in gateways alone, and a way out to its port."""

from typing import Any

import yaml

from operator_world import pool_document
from t2i_api.parse import read_pool
from t2i_operator.decide.children import key_of
from t2i_operator.manifests import Images, Inputs, render_children
from t2i_operator.manifests.child import Manifest, PoolRef

RESULTS = {"url": "s3://images/drawn", "endpoint": "https://minio.storage.svc:9000", "secretName": "bucket"}


def rendered(**results: Any) -> dict[str, Manifest]:
    """`KIND/NAME` -> manifest."""
    return rendered_with(gateway={"replicas": 1, **({"results": results} if results else {})})


def rendered_with(**spec_parts: Any) -> dict[str, Manifest]:
    spec = read_pool(pool_document(**{"gateway": {"replicas": 1}, **spec_parts})).spec
    inputs = Inputs(PoolRef("ns", "p", "uid-1"), spec, "{}", Images("g@x", "w@y"))
    return {"/".join(key_of(child)): child for child in render_children(inputs)}


def test_gateways_get_secret_and_port_and_workers_neither() -> None:
    """Workers never see the bucket; a gateway that is cut off from it would answer every link with an error."""
    plain, kept = rendered(), rendered(**RESULTS)
    gateway = kept["Deployment/p-gateway"]["spec"]["template"]["spec"]
    assert {one["secret"]["secretName"] for one in gateway["volumes"] if "secret" in one} == {"bucket"}
    assert "--results-dir=/etc/t2i-security/results" in gateway["containers"][0]["args"]
    opened = {"ports": [{"port": 9000, "protocol": "TCP"}]}
    egress = plain["NetworkPolicy/p-gateway"]["spec"]["egress"]
    assert kept["NetworkPolicy/p-gateway"]["spec"]["egress"] == [*egress, opened]
    for key in ("NetworkPolicy/p-workers", "StatefulSet/p-a"):
        assert kept[key] == plain[key]


def test_gateways_alone_get_the_certificate_that_signs_images() -> None:
    """Workers run models of others, and sign nothing."""
    plain, signed = rendered(), rendered_with(provenance={"c2pa": {"secretName": "signer"}})
    gateway = signed["Deployment/p-gateway"]["spec"]["template"]["spec"]
    assert {one["secret"]["secretName"] for one in gateway["volumes"] if "secret" in one} == {"signer"}
    assert "--c2pa-dir=/etc/t2i-security/c2pa" in gateway["containers"][0]["args"]
    for key in ("NetworkPolicy/p-gateway", "NetworkPolicy/p-workers", "StatefulSet/p-a"):
        assert signed[key] == plain[key]
    spec = [yaml.safe_load(one["ConfigMap/p-config"]["data"]["pool.yaml"])["spec"] for one in (plain, signed)]
    assert ["c2pa" in one.get("provenance", {}) for one in spec] == [False, True]
    prompts = rendered_with(provenance={"prompt": True})["ConfigMap/p-config"]["data"]["pool.yaml"]
    assert yaml.safe_load(prompts)["spec"]["provenance"] == {"metadata": True, "prompt": True}


def test_pods_of_an_older_version_can_read_a_pool_without_bucket() -> None:
    """They refuse fields that they do not know."""
    documents = (rendered(), rendered(**RESULTS))
    read = [yaml.safe_load(one["ConfigMap/p-config"]["data"]["pool.yaml"])["spec"]["gateway"] for one in documents]
    assert ["results" in one for one in read] == [False, True]
