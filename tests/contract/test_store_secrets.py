"""How pods get into the shared store: variables and files from a Secret, never arguments."""

from pathlib import Path

import pytest

from t2i_api.parse import PoolError, parse_pool
from t2i_cache.stores.redis import PASSWORD_VARIABLE, TLS_VARIABLE, USER_VARIABLE
from t2i_operator.manifests.child import Images, Inputs, Manifest, PoolRef
from t2i_operator.manifests.gateway import render_gateway
from t2i_operator.manifests.store import TLS_FOLDER_VARIABLE, VARIABLES
from t2i_operator.manifests.workers import render_group

EXAMPLE = Path(__file__).parents[2] / "examples" / "pool-shared-cache.yaml"


def pods(text: str) -> list[Manifest]:
    """The pod specs of gateway and workers."""
    pool = parse_pool(text)
    inputs = Inputs(PoolRef("models", pool.metadata.name, "uid"), pool.spec, "{}", Images("gateway:1", "worker:1"))
    children = [*render_gateway(inputs), *render_group(inputs, pool.spec.worker_groups[0])]
    return [child["spec"]["template"]["spec"] for child in children if child["kind"] in ("Deployment", "StatefulSet")]


def test_variables_are_those_the_store_reads() -> None:
    """Two components that do not import each other agree on names."""
    assert VARIABLES == {USER_VARIABLE: "username", PASSWORD_VARIABLE: "password"}
    assert TLS_FOLDER_VARIABLE == TLS_VARIABLE


def test_password_comes_from_the_secret() -> None:
    """Both kinds of pods: the URL and whose latents in the arguments, user and password by reference."""
    for pod in pods(EXAMPLE.read_text()):
        container = pod["containers"][0]
        assert "--store=redis://t2i-valkey.t2i-system.svc:6379" in container["args"]
        assert "--store-pool=models/scenes-shared" in container["args"]
        by_name = {one["name"]: one for one in container["env"]}
        reference = by_name[PASSWORD_VARIABLE]["valueFrom"]["secretKeyRef"]
        assert reference == {"name": "valkey", "key": "password", "optional": True}
        assert TLS_VARIABLE not in by_name


def test_tls_store_mounts_the_certificates() -> None:
    """rediss:// needs the Secret as a folder, read only."""
    for pod in pods(EXAMPLE.read_text().replace("redis://", "rediss://")):
        container = pod["containers"][0]
        folder = next(one["value"] for one in container["env"] if one["name"] == TLS_VARIABLE)
        mount = next(one for one in container["volumeMounts"] if one["mountPath"] == folder)
        assert mount["readOnly"]
        volume = next(one for one in pod["volumes"] if one["name"] == mount["name"])
        assert volume["secret"]["secretName"] == "valkey"


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("redis://t2i", "redis://:hunter2@t2i", "must not hold a user or a password"),
        ("redis://t2i-valkey.t2i-system.svc:6379", "file:///latents", "storeSecretRef is for"),
    ],
)
def test_mistake_is_refused(old: str, new: str, named: str) -> None:
    """With what to do instead."""
    with pytest.raises(PoolError, match=named):
        parse_pool(EXAMPLE.read_text().replace(old, new))
