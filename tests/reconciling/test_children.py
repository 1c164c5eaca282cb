"""Children as manifests: what must be in them, what must never change them, and how a group's template is merged."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from operator_world import pool_document
from t2i_api.parse import read_pool
from t2i_api.template_rules import (
    AUDITOR_OWNED,
    GATEWAY_OWNED,
    OWNED_VARIABLES,
    OWNED_VOLUMES,
    WORKER_OWNED,
    OwnedFields,
)
from t2i_operator.control_channels import control_address
from t2i_operator.decide.children import key_of
from t2i_operator.errors import TemplateInvalid
from t2i_operator.manifests import Images, Inputs, render_children
from t2i_operator.manifests.child import Manifest, PoolRef
from t2i_operator.manifests.pod import MODELS_FOLDER
from t2i_operator.manifests.template import Overrides, merge_template

PROFILE = (Path(__file__).parents[2] / "scenes" / "t2i_scenes" / "model" / "profile.json").read_text()


def rendered(**spec: Any) -> dict[str, Manifest]:
    """`KIND/NAME` -> manifest."""
    pool = read_pool(pool_document(**spec))
    children = render_children(Inputs(PoolRef("ns", "p", "uid-1"), pool.spec, PROFILE, Images("gateway@x", "worker@y")))
    return {"/".join(key_of(child)): child for child in children}


def test_mix_changes_no_child() -> None:
    """Levels are labels and a plan, never a template, a ConfigMap or anything else that is rendered."""
    mix = {"mode": "Fixed", "workers": [{"skippedSteps": 6, "workers": 2}]}
    assert rendered(mix=mix) == rendered()


def test_another_group_changes_only_the_config_and_its_own() -> None:
    """The gateway is told of workers by the API server; it must not restart for them."""
    before, after = rendered(), rendered(workerGroups=[{"name": "a", "workers": 2}, {"name": "b", "workers": 1}])
    changed = {key for key in before if before[key] != after[key]}
    assert changed == {"ConfigMap/p-config"}
    assert after.keys() - before.keys() == {"Service/p-b", "StatefulSet/p-b", "PodDisruptionBudget/p-b"}


def test_pods_of_a_group_start_together_and_never_surge() -> None:
    """Its devices are all taken. Gateways need none, so a new one is there before an old one goes."""
    group, gateway = rendered()["StatefulSet/p-a"]["spec"], rendered()["Deployment/p-gateway"]["spec"]
    assert (group["podManagementPolicy"], group["updateStrategy"]) == ("Parallel", {"type": "RollingUpdate"})
    assert gateway["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


def test_every_port_listens_on_both_families() -> None:
    """A cluster may have IPv4, IPv6 or both."""
    listens = [
        argument
        for child in rendered().values()
        if child["kind"] in ("Deployment", "StatefulSet")
        for argument in child["spec"]["template"]["spec"]["containers"][0]["args"]
        if "listen" in argument.partition("=")[0]
    ]
    assert len(listens) == 7
    assert [one for one in listens if "=[::]:" not in one] == []


def test_gateways_are_polled_at_addresses_of_both_families() -> None:
    """An IPv6 address has its brackets."""
    spec = {"containers": [{"ports": [{"name": "control", "containerPort": 50052}]}]}
    found = [control_address({"spec": spec, "status": {"podIP": one}}) for one in ("10.1.2.3", "fd00::1", "")]
    assert found == ["10.1.2.3:50052", "[fd00::1]:50052", None]


HUB = "hf://stabilityai/sdxl"
EMBEDDERS = {
    "the embedded model's own": ({"source": "builtin://scenes"}, "--embedder=builtin://scenes", None),
    "the default of hub models": (
        {"source": HUB},
        "--embedder=hf://sentence-transformers/all-MiniLM-L6-v2",
        {"name": "models", "emptyDir": {}},
    ),
    "one in a volume": (
        {"source": HUB, "embedder": "pvc://claim/minilm"},
        "--embedder=pvc://claim/minilm",
        {"name": "models", "persistentVolumeClaim": {"claimName": "claim", "readOnly": True}},
    ),
    "none for a model in a volume": ({"source": "pvc://claim/sdxl"}, None, None),
}


@pytest.mark.parametrize(("model", "argument", "volume"), EMBEDDERS.values(), ids=EMBEDDERS.keys())
def test_gateways_get_their_embedder(model: dict[str, str], argument: str | None, volume: Manifest | None) -> None:
    """Its address, and a folder that it is found in or downloaded to; a pool that caches nothing has none."""
    for scope, expected in (("Tenant", argument), ("Off", None)):
        made = rendered(model={**pool_document()["spec"]["model"], **model}, cache={"scope": scope})[
            "Deployment/p-gateway"
        ]
        pod = made["spec"]["template"]["spec"]
        arguments = [one for one in pod["containers"][0]["args"] if one.startswith("--embedder=")]
        assert arguments == ([expected] if expected else [])
        volumes = [one for one in pod["volumes"] if one["name"] == "models"]
        mounts = [one for one in pod["containers"][0]["volumeMounts"] if one["name"] == "models"]
        assert volumes == ([volume] if volume and expected else [])
        assert len(mounts) == len(volumes)


DECODERS = {
    "none": ("pvc://a/sdxl", "", {"models": "MODELS/a"}),
    "in the model's claim": ("pvc://a/sdxl", "pvc://a/taesdxl", {"models": "MODELS/a"}),
    "in a claim of its own": ("pvc://a/sdxl", "pvc://b/taesdxl", {"models": "MODELS/a", "models-2": "MODELS/b"}),
    "of a hub beside a claim": ("pvc://a/sdxl", "hf://x/taesdxl", {"models": "MODELS/a", "models-2": "MODELS"}),
    "of a hub, as the model": ("hf://x/sdxl", "hf://x/taesdxl", {"models": "MODELS"}),
}


@pytest.mark.parametrize(("source", "decoder", "mounts"), DECODERS.values(), ids=DECODERS.keys())
def test_workers_get_a_folder_of_their_preview_decoder(source: str, decoder: str, mounts: dict[str, str]) -> None:
    """Every volume has a name and a place of its own; a hub is reached if either comes from there."""
    model = {**pool_document()["spec"]["model"], "source": source, "previewDecoder": decoder}
    children = rendered(model=model)
    pod = children["StatefulSet/p-a"]["spec"]["template"]["spec"]
    found = {
        one["name"]: one["mountPath"].replace(MODELS_FOLDER, "MODELS")
        for one in pod["containers"][0]["volumeMounts"]
        if one["name"].startswith("models")
    }
    assert found == mounts
    assert {one["name"] for one in pod["volumes"]} >= set(mounts)


def test_workers_reach_the_image_encoder_of_an_ip_adapter() -> None:
    """It may lie elsewhere than the adapter; a folder in the adapter's own source is no address."""
    face = {"name": "face", "kind": "IPAdapter", "source": "pvc://a/ip", "weightName": "ip.safetensors"}
    model = {**pool_document()["spec"]["model"], "source": "pvc://a/sdxl"}
    for encoder, expected in (("clip", ["/a"]), ("pvc://b/clip", ["/a", "/b"]), ("hf://x/clip", ["/a", ""])):
        children = rendered(model={**model, "components": [{**face, "imageEncoder": encoder}]})
        mounts = children["StatefulSet/p-a"]["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
        found = [one["mountPath"].removeprefix(MODELS_FOLDER) for one in mounts if one["name"].startswith("models")]
        assert found == expected
        egress = children["NetworkPolicy/p-workers"]["spec"]["egress"]
        assert any(one.get("ports", [{}])[0].get("port") == 443 for one in egress) == encoder.startswith("hf://")


def test_fields_that_came_later_are_written_only_if_set() -> None:
    """Pods of an older version can still read the pool."""
    model = pool_document()["spec"]["model"]
    for further, expected in (({}, False), ({"compile": "Auto"}, True)):
        config = rendered(model={**model, **further})["ConfigMap/p-config"]["data"]["pool.yaml"]
        assert ("compile" in config, "attention" in config, "previewDecoder" in config) == (expected, False, False)


def test_pool_that_asks_for_nothing_new_is_written_as_before() -> None:
    """A field that is added must be added to those that came later, or no older pod starts again in an upgrade."""
    spec = yaml.safe_load(rendered()["ConfigMap/p-config"]["data"]["pool.yaml"])["spec"]
    assert {*spec} == {"cache", "gateway", "levels", "model", "security", "slo", "workerGroups"}
    assert {*spec["gateway"]} == {"maxQueuedRequests", "replicas", "tenants"}
    assert {*spec["model"]} == {
        *("guidanceScalePercent", "height", "numInferenceSteps", "precision", "revision", "source", "width")
    }


def test_every_pod_is_restricted() -> None:
    """Pod Security `restricted`, no token for workers, and time to drain."""
    children = rendered()
    for key in ("StatefulSet/p-a", "Deployment/p-gateway"):
        pod = children[key]["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            drain = next(arg for arg in container["args"] if arg.startswith("--drain-s="))
            assert pod["terminationGracePeriodSeconds"] > int(drain.partition("=")[2])
    assert children["StatefulSet/p-a"]["spec"]["template"]["spec"]["automountServiceAccountToken"] is False


def test_gateways_keep_their_share_of_a_busy_node() -> None:
    """Beside workers that take every core a pod without requests starves; seen on a real node of two cores."""
    (container,) = rendered()["Deployment/p-gateway"]["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["requests"].keys() == {"cpu", "memory"}


POD: Manifest = {
    "metadata": {"labels": {"t2iserving.dev/pool": "p"}},
    "spec": {
        "containers": [{"name": "worker", "image": "w", "args": ["--a"], "env": [{"name": "A", "value": "1"}]}],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
        "securityContext": {"runAsUser": 1, "runAsNonRoot": True},
        "topologySpreadConstraints": [
            {"topologyKey": "host", "whenUnsatisfiable": "ScheduleAnyway", "maxSkew": 1, "labelSelector": {}}
        ],
    },
}


def of_worker(**template: Any) -> Overrides:
    """A worker group's template."""
    return Overrides(template, "worker", "workerGroups: template of 'a'")


def test_template_is_merged_by_its_rules() -> None:
    """Each rule of the module once."""
    merged = merge_template(
        POD,
        of_worker(
            labels={"team": "x", "t2iserving.dev/pool": "stolen"},
            resources={"limits": {"nvidia.com/gpu": 1}},
            env=[{"name": "A", "value": "2"}, {"name": "B", "value": "3"}],
            extraArgs=["--device=cuda"],
            volumes=[{"name": "data", "emptyDir": {}}],
            tolerations=[{"key": "gpu"}],
            securityContext={"runAsUser": None, "fsGroup": 5},
            containers=[{"name": "sidecar", "image": "s"}],
            envFrom=[{"secretRef": {"name": "proxy"}}],
            topologySpreadConstraints=[
                {"topologyKey": "host", "whenUnsatisfiable": "ScheduleAnyway", "maxSkew": 2},
                {"topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "maxSkew": 1},
            ],
        ),
    )
    worker, sidecar = merged["spec"]["containers"]
    assert merged["metadata"]["labels"] == {"team": "x", "t2iserving.dev/pool": "p"}
    assert worker["resources"] == {"limits": {"nvidia.com/gpu": 1}}
    assert worker["env"] == [{"name": "A", "value": "2"}, {"name": "B", "value": "3"}]
    assert worker["args"] == ["--a", "--device=cuda"]
    assert [volume["name"] for volume in merged["spec"]["volumes"]] == ["tmp", "data"]
    assert merged["spec"]["tolerations"] == [{"key": "gpu"}]
    assert merged["spec"]["securityContext"] == {"runAsNonRoot": True, "fsGroup": 5}
    assert sidecar["name"] == "sidecar"
    assert worker["envFrom"] == [{"secretRef": {"name": "proxy"}}]
    assert merged["spec"]["topologySpreadConstraints"] == [
        {"topologyKey": "host", "whenUnsatisfiable": "ScheduleAnyway", "maxSkew": 2, "labelSelector": {}},
        {"topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "maxSkew": 1},
    ]
    assert POD["spec"]["containers"][0]["args"] == ["--a"], "the input must stay as it is"


@pytest.mark.parametrize(
    ("template", "named"),
    [
        ({"env": {"A": "1"}}, "env must be a list"),
        ({"volumes": [{"emptyDir": {}}]}, "volumes: every entry needs 'name'"),
        ({"labels": {"a": 1}}, "labels must map names to texts"),
        ({"topologySpreadConstraints": [{"topologyKey": "zone"}]}, "needs 'topologyKey' and 'whenUnsatisfiable'"),
    ],
)
def test_template_mistake_names_its_field(template: dict[str, Any], named: str) -> None:
    """The message ends up in the Ready condition."""
    with pytest.raises(TemplateInvalid, match=f"^workerGroups: template of 'a': .*{named}"):
        merge_template(POD, of_worker(**template))


STORE = {"storeUrl": "rediss://store:6380", "storeSecretRef": {"name": "store"}}


def test_workers_mount_every_claim_that_holds_a_model_or_an_adapter() -> None:
    """Each claim once, and the folder to download to only where something is downloaded."""
    adapters = [
        {"name": "a", "source": "pvc://claim/a.safetensors"},
        {"name": "b", "source": "pvc://loras/b"},
        {"name": "c", "source": "hf://acme/c"},
    ]
    model = {**pool_document()["spec"]["model"], "source": "pvc://claim/sdxl", "adapters": adapters}
    pod = rendered(model=model)["StatefulSet/p-a"]["spec"]["template"]["spec"]
    kinds = {one["name"]: one for one in pod["volumes"] if one["name"].startswith("models")}
    mounts = [one for one in pod["containers"][0]["volumeMounts"] if one["name"] in kinds]
    claims = {one["mountPath"]: kinds[one["name"]].get("persistentVolumeClaim", {}).get("claimName") for one in mounts}
    assert claims == {"/models": None, "/models/claim": "claim", "/models/loras": "loras"}
    assert len(mounts) == len(kinds) == len(claims)


SECURED = {
    "clientAuthentication": "Token",
    "gatewayTlsSecretName": "g",
    "tokensSecretName": "t",
    "gatewayClientTlsSecretName": "c",
    "workerTlsSecretName": "w",
}

CHECK = {"url": "https://classifier/check", "secretName": "classifier"}
WITH_SECRETS = {
    "safety": {"prompt": CHECK, "image": CHECK},
    "gateway": {"results": {"url": "s3://images", "secretName": "images-bucket"}},
    "provenance": {"c2pa": {"secretName": "images-signer"}},
    "quality": {"judge": "scenes"},
}


OWNED = [
    ("Deployment/p-gateway", GATEWAY_OWNED, OWNED_VARIABLES),
    ("StatefulSet/p-a", WORKER_OWNED, OWNED_VARIABLES),
    ("Deployment/p-auditor", AUDITOR_OWNED, ("POD_NAME",)),
]


@pytest.mark.parametrize(("key", "owned", "variables"), OWNED, ids=[key for key, _, _ in OWNED])
def test_what_a_template_may_not_change_is_what_we_render(
    key: str, owned: OwnedFields, variables: tuple[str, ...]
) -> None:
    """The table of refused names follows the pods: flags, variables, and volumes that hold no latents and no models."""
    hub = {**pool_document()["spec"]["model"], "embedder": "pvc://claim/minilm"}
    pod = rendered(cache=STORE, security=SECURED, model=hub, **WITH_SECRETS)[key]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    own_stores = rendered(quality=WITH_SECRETS["quality"])  # of the workers
    (storing,) = own_stores[key]["spec"]["template"]["spec"]["containers"]
    assert container["name"] == owned.container
    assert {text.partition("=")[0] for text in (*container["args"], *storing["args"])} == set(owned.flags)
    assert {one["name"] for one in container["env"]} - {"HOME", "PYTHONUNBUFFERED"} == set(variables)
    assert {one["name"] for one in pod["volumes"]} - {"models", "tmp"} <= set(OWNED_VOLUMES)


def test_gateway_template_is_merged_as_the_workers() -> None:
    """Every kind of override reaches the gateway's pod, and nothing but its Deployment changes."""
    template = {
        "labels": {"team": "x"},
        "nodeSelector": {"zone": "b"},
        "tolerations": [{"key": "cpu"}],
        "imagePullSecrets": [{"name": "mirror"}],
        "priorityClassName": "high",
        "resources": {"limits": {"memory": "1Gi"}},
        "env": [{"name": "HF_TOKEN", "value": "x"}],
        "volumes": [{"name": "ca", "configMap": {"name": "ca"}}],
        "volumeMounts": [{"name": "ca", "mountPath": "/ca", "readOnly": True}],
        "extraArgs": ["--announce"],
        "topologySpreadConstraints": [
            {"maxSkew": 3, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}
        ],
    }
    before, after = rendered(), rendered(gateway={"replicas": 1, "template": template})
    assert {key for key in after if before[key] != after[key]} == {"Deployment/p-gateway"}
    was, pod = (one["Deployment/p-gateway"]["spec"]["template"] for one in (before, after))
    assert pod["metadata"]["labels"] == {**was["metadata"]["labels"], "team": "x"}
    assert pod["metadata"]["annotations"] == was["metadata"]["annotations"], "the config is the same one"
    spec, (container,) = pod["spec"], pod["spec"]["containers"]
    for field in ("nodeSelector", "tolerations", "imagePullSecrets", "priorityClassName"):
        assert spec[field] == template[field]
    assert container["resources"] == {"limits": {"memory": "1Gi"}}
    assert container["env"][-1] == {"name": "HF_TOKEN", "value": "x"}
    assert container["args"] == [*was["spec"]["containers"][0]["args"], "--announce"]
    assert spec["volumes"][-1]["name"] == container["volumeMounts"][-1]["name"] == "ca"
    (spread,) = spec["topologySpreadConstraints"]
    assert spread == {**was["spec"]["topologySpreadConstraints"][0], "maxSkew": 3}


PORTS = {
    "a proxy": ([{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}], [3128]),
    "a proxy without scheme": ([{"name": "https_proxy", "value": "proxy.corp:8080"}], [8080]),
    "a proxy with a user": ([{"name": "HTTP_PROXY", "value": "http://u:p@proxy"}], [80]),
    "a socks proxy": ([{"name": "ALL_PROXY", "value": "socks5://proxy"}], [1080]),
    "a mirror and a proxy": (
        [{"name": "HF_ENDPOINT", "value": "http://mirror:8081/hf"}, {"name": "HTTP_PROXY", "value": "http://[::1]:9"}],
        [9, 8081],
    ),
    "a collector of traces": ([{"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://collector:4317"}], [4317]),
    "no proxy": ([{"name": "HTTPS_PROXY", "value": ""}, {"name": "NO_PROXY", "value": "a:1"}], None),
    "a proxy in a Secret": ([{"name": "HTTPS_PROXY", "valueFrom": {"secretKeyRef": {"name": "p", "key": "k"}}}], None),
}


@pytest.mark.parametrize(("env", "ports"), PORTS.values(), ids=PORTS.keys())
def test_policy_opens_the_ports_of_proxy_and_mirror(env: list[Manifest], ports: list[int] | None) -> None:
    """A template that names a proxy would be in vain if our own policy cut it off."""
    template = {"env": env}
    plain = rendered()
    opened = rendered(
        gateway={"replicas": 1, "template": template}, workerGroups=[{"name": "a", "workers": 2, "template": template}]
    )
    added = [] if ports is None else [{"ports": [{"port": port, "protocol": "TCP"} for port in ports]}]
    for key in ("NetworkPolicy/p-gateway", "NetworkPolicy/p-workers"):
        assert opened[key]["spec"]["egress"] == [*plain[key]["spec"]["egress"], *added]


@pytest.mark.parametrize("value", ["http://proxy:port", "http://proxy:99999", "ftp://proxy", "http://[proxy"])
def test_proxy_that_is_no_address_is_named(value: str) -> None:
    """It could not be reached, and nobody would know why."""
    template = {"env": [{"name": "HTTPS_PROXY", "value": value}]}
    with pytest.raises(TemplateInvalid, match=r"gateway\.template: env HTTPS_PROXY must be an address"):
        rendered(gateway={"replicas": 1, "template": template})


STORES = {
    "none named: a volume of each worker": ("", "file:///cache/$(POD_NAME)", True, "workers://"),
    "a folder that may be shared: each has its own in it": (
        "file:///data",
        "file:///data/$(POD_NAME)",
        True,
        "workers://",
    ),
    "memory": ("memory://", "memory://", True, "workers://"),
    "a server that all share": ("redis://valkey:6379", "redis://valkey:6379", False, "redis://valkey:6379"),
}


@pytest.mark.parametrize(("url", "store", "own", "gateways"), STORES.values(), ids=STORES.keys())
def test_workers_keep_the_limits_of_their_own_stores(url: str, store: str, own: bool, gateways: str) -> None:
    """Where nobody else could: and gateways learn from the workers then."""
    made = rendered(cache={"storeUrl": url} if url else {})
    worker = next(one for key, one in made.items() if key.startswith("StatefulSet/"))
    arguments = worker["spec"]["template"]["spec"]["containers"][0]["args"]
    gateway = made["Deployment/p-gateway"]["spec"]["template"]["spec"]["containers"][0]["args"]
    assert f"--store={store}" in arguments
    assert ("--own-store" in arguments) is own
    assert f"--store={gateways}" in gateway


@pytest.mark.parametrize("capacity", [1, 64, 4096])
def test_volume_of_latents_has_room_beyond_what_the_worker_keeps(capacity: int) -> None:
    """The kubelet ends pods past a volume's limit, so the worker's own bound is well below it."""
    made = rendered(cache={"capacityMebibytes": capacity})
    worker = next(one for key, one in made.items() if key.startswith("StatefulSet/"))
    volumes = worker["spec"]["template"]["spec"]["volumes"]
    (limit,) = [one["emptyDir"]["sizeLimit"] for one in volumes if one["name"] == "cache"]
    assert int(limit.removesuffix("Mi")) >= 1.25 * capacity + 16 - 1


@pytest.mark.parametrize(("http", "names"), [("Enabled", ["grpc", "http"]), ("Disabled", ["grpc"])])
def test_http_is_open_in_all_children_or_in_none(http: str, names: list[str]) -> None:
    """Service, container, its arguments and the policy speak of the same doors."""
    children = rendered(gateway={"http": http})
    assert [port["name"] for port in children["Service/p-gateway"]["spec"]["ports"]] == names
    container = children["Deployment/p-gateway"]["spec"]["template"]["spec"]["containers"][0]
    assert [port["name"] for port in container["ports"]] == [*names, "control", "metrics"]
    assert ("--listen-http=[::]:8080" in container["args"]) == (http == "Enabled")
    clients = children["NetworkPolicy/p-gateway"]["spec"]["ingress"][0]["ports"]
    assert [port["port"] for port in clients] == [50051, 8080][: len(names)]
