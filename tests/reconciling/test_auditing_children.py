"""The auditor's children: there only if the pool audits, and what a change of `spec.quality` restarts."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from operator_world import pool_document
from t2i_api.parse import read_pool
from t2i_auditor.settings import parse_arguments
from t2i_gateway.settings import parse_arguments as parse_gateway_arguments
from t2i_operator.decide.children import key_of
from t2i_operator.manifests import Images, Inputs, render_children
from t2i_operator.manifests.child import Manifest, PoolRef

PROFILE = (Path(__file__).parents[2] / "scenes" / "t2i_scenes" / "model" / "profile.json").read_text()
SCENES = {"judge": "scenes"}
MEASURED = {"name": "measured"}
AUDITOR = {"NetworkPolicy/p-auditor", "Service/p-auditor", "Deployment/p-auditor"}


def rendered(profile: str = PROFILE, **spec: Any) -> dict[str, Manifest]:
    """`KIND/NAME` -> manifest."""
    pool = read_pool(pool_document(**spec))
    children = render_children(Inputs(PoolRef("ns", "p", "uid-1"), pool.spec, profile, Images("gateway@x", "worker@y")))
    return {"/".join(key_of(child)): child for child in children}


def templates(children: dict[str, Manifest]) -> dict[str, Any]:
    """`KIND/NAME` -> template, of what runs pods: another one restarts them."""
    return {key: one["spec"]["template"] for key, one in children.items() if "template" in one.get("spec", {})}


def restarted(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    """Which workloads a change of `spec.quality` restarts."""
    was, now = (templates(rendered(quality=quality)) for quality in (before, after))
    return {key for key in was if was[key] != now[key]}


def test_auditor_comes_with_audits_and_no_worker_hears_of_it() -> None:
    """Gateways learn where it is and may reach it; a worker's model takes minutes to load."""
    before, after = rendered(), rendered(quality=SCENES)
    assert after.keys() - before.keys() == AUDITOR
    changed = {key for key in before if before[key] != after[key]}
    assert changed == {"ConfigMap/p-config", "NetworkPolicy/p-gateway", "Deployment/p-gateway"}


CHANGES = {
    "the corrections begin": (
        {"judge": "scenes", "recalibrate": True},
        {"Deployment/p-auditor", "Deployment/p-gateway"},
    ),
    "more is audited": ({"judge": "scenes", "auditPerMille": 100}, {"Deployment/p-gateway"}),
    "the auditor gets more memory": (
        {"judge": "scenes", "template": {"resources": {"requests": {"memory": "8Gi"}}}},
        {"Deployment/p-auditor"},
    ),
}


@pytest.mark.parametrize(("quality", "workloads"), CHANGES.values(), ids=CHANGES.keys())
def test_change_restarts_who_reads_it_at_its_start(quality: dict[str, Any], workloads: set[str]) -> None:
    """And nobody else, least of all a worker."""
    assert restarted(SCENES, quality) == workloads


def test_another_judge_restarts_the_auditor_alone() -> None:
    """Gateways know nothing of judges."""
    one, other = (templates(rendered(quality={"judge": judge}, profileRef=MEASURED)) for judge in ("pickscore", "hps"))
    assert {key for key in one if one[key] != other[key]} == {"Deployment/p-auditor"}


def test_another_profile_restarts_the_auditor() -> None:
    """What it has measured is compared with the losses of the profile."""
    one, other = (templates(rendered(profile, quality=SCENES)) for profile in (PROFILE, PROFILE + " "))
    assert one["Deployment/p-auditor"] != other["Deployment/p-auditor"]


def test_auditor_is_one_of_its_kind_and_asks_for_little() -> None:
    """Two would both count and correct; it needs no device, no token, and the restricted Pod Security is kept."""
    deployment = rendered(quality=SCENES)["Deployment/p-auditor"]["spec"]
    assert (deployment["replicas"], deployment["strategy"]) == (1, {"type": "Recreate"})
    pod = deployment["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    assert container["resources"].keys() == {"requests"}
    (kept,) = (one for one in pod["volumes"] if one["name"] == "audits")
    assert kept["configMap"] == {"name": "p-audits", "optional": True}


@pytest.mark.parametrize("security", [{}, {"gatewayClientTlsSecretName": "c", "workerTlsSecretName": "w"}])
def test_processes_understand_their_arguments(security: dict[str, str]) -> None:
    """The flags are those that auditor and gateway have; the gateway is told where the auditor's Service is."""
    children = rendered(quality=SCENES, security=security)
    (auditor,) = templates(children)["Deployment/p-auditor"]["spec"]["containers"]
    settings = parse_arguments(auditor["args"])
    mounts = {one["mountPath"] for one in auditor["volumeMounts"]}
    assert settings.corrections is not None
    assert {str(settings.pool.parent), str(settings.corrections.parent), str(settings.models_dir)} <= mounts
    (gateway,) = templates(children)["Deployment/p-gateway"]["spec"]["containers"]
    assert parse_gateway_arguments(gateway["args"]).auditor == "p-auditor.ns.svc:50051"
    assert children["Service/p-auditor"]["spec"]["ports"][0]["port"] == 50051


def test_pool_document_says_who_judges_and_not_how_its_pod_looks() -> None:
    """Pods read the one; the other is the operator's."""
    quality = {"judge": "scenes", "recalibrate": True, "template": {"nodeSelector": {"a": "b"}}}
    config = rendered(quality=quality)["ConfigMap/p-config"]["data"]["pool.yaml"]
    written = yaml.safe_load(config)["spec"]["quality"]
    assert written == {"judge": "scenes", "auditPerMille": 20, "recalibrate": True}


JUDGES = {
    "the embedded one": ("scenes", None, None),
    "published weights": ("pickscore", 443, {"emptyDir": {}}),
    "weights of a hub": ("hps=hf://acme/hps", 443, {"emptyDir": {}}),
    "weights in a volume": (
        "lpips=pvc://claim/vgg",
        None,
        {"persistentVolumeClaim": {"claimName": "claim", "readOnly": True}},
    ),
    "a service": ("http://judge.ns:8000/score", 8000, None),
    "a service behind TLS": ("https://judge.example", 443, None),
}


@pytest.mark.parametrize(("judge", "port", "volume"), JUDGES.values(), ids=JUDGES.keys())
def test_auditor_reaches_its_judge_and_nothing_else(judge: str, port: int | None, volume: Manifest | None) -> None:
    """Names are asked of name servers; further ports are for the weights, or for the judge itself."""
    profile = {} if judge == "scenes" else {"profileRef": MEASURED}
    children = rendered(quality={"judge": judge}, **profile)
    egress = children["NetworkPolicy/p-auditor"]["spec"]["egress"][1:]
    assert egress == ([] if port is None else [{"ports": [{"port": port, "protocol": "TCP"}]}])
    volumes = templates(children)["Deployment/p-auditor"]["spec"]["volumes"]
    models = [one for one in volumes if one["name"] == "models"]
    assert volume is None or models == [{"name": "models", **volume}]


def test_only_gateways_send_images_to_the_auditor() -> None:
    """Both policies speak of the same pods and port."""
    children = rendered(quality=SCENES)
    (rule,) = (
        rule
        for rule in children["NetworkPolicy/p-auditor"]["spec"]["ingress"]
        if {"port": 50051, "protocol": "TCP"} in rule["ports"]
    )
    (peer,) = rule["from"]
    assert peer["podSelector"] == children["NetworkPolicy/p-gateway"]["spec"]["podSelector"]
    there = {"podSelector": children["NetworkPolicy/p-auditor"]["spec"]["podSelector"]}
    assert {"to": [there], "ports": [{"port": 50051, "protocol": "TCP"}]} in (
        children["NetworkPolicy/p-gateway"]["spec"]["egress"]
    )


def test_proxy_of_the_template_is_reached() -> None:
    """As for workers and gateways."""
    template = {"env": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}]}
    children = rendered(quality={"judge": "pickscore", "template": template}, profileRef=MEASURED)
    ports = [{"port": 3128, "protocol": "TCP"}]
    assert {"ports": ports} in children["NetworkPolicy/p-auditor"]["spec"]["egress"]
    (container,) = templates(children)["Deployment/p-auditor"]["spec"]["containers"]
    assert container["env"][-1] == template["env"][0]
