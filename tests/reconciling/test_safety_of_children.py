"""What a safety check needs in a cluster: its Secret mounted in gateways alone, and a way out to its port."""

from pathlib import Path
from typing import Any

import yaml

from operator_world import pool_document
from t2i_api.parse import read_pool
from t2i_operator.decide.children import key_of
from t2i_operator.manifests import Images, Inputs, render_children
from t2i_operator.manifests.child import Manifest, PoolRef

PROFILE = (Path(__file__).parents[2] / "scenes" / "t2i_scenes" / "model" / "profile.json").read_text()
CHECKS = {
    "prompt": {"url": "https://classifier.safety.svc:8443/prompt", "secretName": "classifier"},
    "image": {"url": "http://classifier.safety.svc/image"},
}


def rendered(**spec: Any) -> dict[str, Manifest]:
    """`KIND/NAME` -> manifest."""
    inputs = Inputs(PoolRef("ns", "p", "uid-1"), read_pool(pool_document(**spec)).spec, PROFILE, Images("g@x", "w@y"))
    return {"/".join(key_of(child)): child for child in render_children(inputs)}


def open_ports(children: dict[str, Manifest]) -> set[int]:
    """Where gateways may go, whoever is there."""
    rules = children["NetworkPolicy/p-gateway"]["spec"]["egress"]
    return {port["port"] for rule in rules if "to" not in rule for port in rule["ports"]}


def test_gateways_get_the_secret_and_the_ports_and_workers_neither() -> None:
    plain, checked = rendered(), rendered(safety=CHECKS)
    gateway = checked["Deployment/p-gateway"]["spec"]["template"]["spec"]
    mounted = {one["name"]: one["secret"]["secretName"] for one in gateway["volumes"] if "secret" in one}
    assert mounted == {"safety-prompt": "classifier"}
    assert "--safety-prompt-dir=/etc/t2i-security/safety-prompt" in gateway["containers"][0]["args"]
    assert open_ports(checked) - open_ports(plain) == {8443, 80}
    for key in ("NetworkPolicy/p-workers", "StatefulSet/p-a"):
        assert checked[key] == plain[key]


def test_pods_of_an_older_version_can_read_a_pool_without_checks() -> None:
    """They refuse fields that they do not know, and start anew from the same ConfigMap while others are upgraded."""
    document = yaml.safe_load(rendered()["ConfigMap/p-config"]["data"]["pool.yaml"])
    assert not {"safety", "provenance"} & document["spec"].keys()
    assert "safety" in yaml.safe_load(rendered(safety=CHECKS)["ConfigMap/p-config"]["data"]["pool.yaml"])["spec"]


def test_another_check_rolls_the_gateways() -> None:
    """They read it at their start."""

    def roll(**spec: Any) -> str:
        metadata = rendered(**spec)["Deployment/p-gateway"]["spec"]["template"]["metadata"]
        return str(metadata["annotations"]["t2iserving.dev/config-hash"])

    assert len({roll(), roll(safety=CHECKS), roll(provenance={"metadata": False})}) == 3
