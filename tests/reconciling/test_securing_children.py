"""Secrets in children and the condition that tells what is open: pure functions of the spec."""

from pathlib import Path
from typing import Any

import pytest

from operator_world import pool_document
from t2i_api.parse import read_pool
from t2i_operator.decide.children import key_of
from t2i_operator.decide.conditions import judge_security
from t2i_operator.manifests import Images, Inputs, render_children
from t2i_operator.manifests.child import Manifest, PoolRef

PROFILE = (Path(__file__).parents[2] / "scenes" / "t2i_scenes" / "model" / "profile.json").read_text()
INSIDE = {"gatewayClientTlsSecretName": "c", "workerTlsSecretName": "w"}
TOKEN = {"clientAuthentication": "Token", "tokensSecretName": "t", "gatewayTlsSecretName": "g"}
EVERYTHING = {**TOKEN, **INSIDE}


def rendered(security: dict[str, Any], operator_namespace: str = "t2i-system") -> dict[str, Manifest]:
    """`KIND/NAME` -> manifest, of a pool that audits."""
    spec = read_pool(pool_document(security=security, quality={"judge": "scenes"})).spec
    images = Images("gateway@x", "worker@y", operator_namespace=operator_namespace)
    children = render_children(Inputs(PoolRef("ns", "p", "uid-1"), spec, PROFILE, images))
    return {"/".join(key_of(child)): child for child in children}


def pod(children: dict[str, Manifest], key: str) -> Any:
    """The pod's spec of a workload."""
    return children[key]["spec"]["template"]["spec"]


def test_each_process_gets_its_secrets_and_no_others() -> None:
    """Mounted as folders, readable by the pod's group alone, optional so that the process can say what is missing."""
    children = rendered(EVERYTHING)
    for key, wanted in (
        ("Deployment/p-gateway", {"tls": "g", "tokens": "t", "worker-tls": "c"}),
        ("StatefulSet/p-a", {"tls": "w"}),
        ("Deployment/p-auditor", {"tls": "w"}),
    ):
        spec = pod(children, key)
        secrets = {volume["name"]: volume["secret"] for volume in spec["volumes"] if "secret" in volume}
        assert {name: secret["secretName"] for name, secret in secrets.items()} == wanted
        assert all(secret["optional"] and secret["defaultMode"] == 0o440 for secret in secrets.values())
        mounts = {one["name"]: one for one in spec["containers"][0]["volumeMounts"] if one["name"] in wanted}
        assert mounts.keys() == wanted.keys()
        assert all(one["readOnly"] and "subPath" not in one for one in mounts.values())


def test_processes_are_told_where_secrets_are_and_whom_to_expect() -> None:
    """The names in certificates follow from pool and namespace; nothing is ever local mode."""
    children = rendered(EVERYTHING)
    gateway = pod(children, "Deployment/p-gateway")["containers"][0]["args"]
    folder = "/etc/t2i-security"
    assert {
        f"--tls-dir={folder}/tls", f"--tokens-dir={folder}/tokens", f"--worker-tls-dir={folder}/worker-tls",
        "--worker-name=p-workers.ns.svc",
    } <= set(gateway)  # fmt: skip
    for called in ("StatefulSet/p-a", "Deployment/p-auditor"):
        arguments = pod(children, called)["containers"][0]["args"]
        assert {f"--tls-dir={folder}/tls", "--gateway-name=p-gateway.ns.svc"} <= set(arguments)
    assert "--local" not in (*gateway, *pod(rendered({}), "Deployment/p-gateway")["containers"][0]["args"])


def test_pool_without_security_mounts_nothing() -> None:
    """A first pool needs no Secret."""
    children = rendered({})
    for key in ("Deployment/p-gateway", "StatefulSet/p-a", "Deployment/p-auditor"):
        assert not [volume for volume in pod(children, key)["volumes"] if "secret" in volume]


def test_kubelet_probes_a_port_without_tls() -> None:
    """gRPC probes know none; the port answers nothing but health."""
    for security in ({}, EVERYTHING):
        container = pod(rendered(security), "StatefulSet/p-a")["containers"][0]
        health = next(port["containerPort"] for port in container["ports"] if port["name"] == "health")
        assert {container[f"{kind}Probe"]["grpc"]["port"] for kind in ("startup", "readiness", "liveness")} == {health}


def ingress(children: dict[str, Manifest], name: str, port: int) -> list[Any]:
    """Who may reach a port: the `from` of the rule, [] for everybody."""
    rules = children[f"NetworkPolicy/{name}"]["spec"]["ingress"]
    (rule,) = (rule for rule in rules if port in {one["port"] for one in rule["ports"]})
    return list(rule.get("from", []))


def namespaces(peers: list[Any]) -> set[str]:
    """Whose pods."""
    return {peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] for peer in peers}


@pytest.mark.parametrize("name", ["p-gateway", "p-workers", "p-auditor"])
def test_metrics_are_for_whom_the_pool_names(name: str) -> None:
    """Open while nobody is told apart; else the pool's own namespace, or those named."""
    assert ingress(rendered({}), name, 9090) == []
    assert namespaces(ingress(rendered(TOKEN), name, 9090)) == {"ns"}
    named = rendered({**TOKEN, "metricsNamespaces": ["monitoring", "ops"]})
    assert namespaces(ingress(named, name, 9090)) == {"monitoring", "ops"}


@pytest.mark.parametrize("name", ["p-gateway", "p-auditor"])
def test_control_port_is_for_the_operator_where_it_runs(name: str) -> None:
    """Labels alone could be worn by anybody's pod in another namespace."""
    (peer,) = ingress(rendered({}), name, 50052)
    assert namespaces([peer]) == {"t2i-system"}
    assert peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "operator"


def test_health_port_of_workers_is_for_the_kubelet_alone() -> None:
    """Probes come from the node, which policies let through; so no rule names the port."""
    rules = rendered({})["NetworkPolicy/p-workers"]["spec"]["ingress"]
    assert {port["port"] for rule in rules for port in rule["ports"]} == {50051, 9090}


def test_only_names_of_secrets_restart_gateways() -> None:
    """Whom metrics are for is the network's business."""

    def template(security: dict[str, Any]) -> Any:
        return rendered(security)["Deployment/p-gateway"]["spec"]["template"]

    assert template(TOKEN) == template({**TOKEN, "metricsNamespaces": ["monitoring"]})
    assert template(TOKEN) != template({**TOKEN, "tokensSecretName": "other"})


SHARED = {"scope": "Pool", "sharedBetweenTenants": True}


@pytest.mark.parametrize(
    ("security", "cache", "reason"),
    [
        ({}, {}, "NoClientAuthentication"),
        (INSIDE, {}, "NoClientAuthentication"),
        (TOKEN, {}, "WorkersInClear"),
        (EVERYTHING, SHARED, "LatentsShared"),
    ],
)
def test_what_is_open_is_named_with_the_next_step(security: Any, cache: Any, reason: str) -> None:
    """The first gap; the message names a field of the spec."""
    verdict = judge_security(read_pool(pool_document(security=security, cache=cache)).spec)
    assert verdict.holds is False
    assert verdict.reason == reason
    assert "spec." in verdict.message


def test_nothing_is_open_when_everything_is_set() -> None:
    """Tenants told apart, traffic inside encrypted, latents private."""
    assert judge_security(read_pool(pool_document(security=EVERYTHING)).spec).holds
