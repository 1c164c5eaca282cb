"""The gateway: a Deployment, its Service and a disruption budget.

It restarts (rolling, a new one first) when something changes that it reads at its start: ladder, SLO, cache, tenants,
profile, which Secrets. So it does when the owner changes its template. The mix, the worker groups and the contents of
Secrets are not among them: these are followed.
"""

from t2i_api.names import (
    GATEWAY,
    GROUP,
    GRPC_PORT,
    HEALTH_PORT,
    METRICS_PORT,
    common_labels,
    gateway_name,
    selector_labels,
)
from t2i_operator.children.config import gateway_facts
from t2i_operator.children.inputs import Inputs
from t2i_operator.children.models import embedder_arguments, embedder_mounts, embedder_volumes
from t2i_operator.children.pods import (
    CLOSE_S,
    CONFIG_FOLDER,
    config_mount,
    config_volume,
    container_security,
    environment,
    grpc_probe,
    pod_security,
    pull,
    tmp_mount,
    tmp_volume,
)
from t2i_operator.children.securing import gateway_arguments, gateway_secrets, secret_mounts, secret_volumes
from t2i_operator.children.storing import (
    gateway_mounts,
    gateway_store,
    gateway_volumes,
    store_arguments,
    store_environment,
)
from t2i_operator.children.templates import merge_template, of_gateway
from t2i_operator.manifests import Manifest, child, digest

LEAVE_S = 5  # until the last client has heard that this endpoint is going
CONFIG_HASH = f"{GROUP}/config-hash"
#: Without a request its share of a busy node is a 250th of a worker's, and its start takes minutes. No limit: its
#: catalogue of similar prompts grows with the cache.
REQUESTS = {"cpu": "100m", "memory": "192Mi"}


def render_gateway(inputs: Inputs) -> list[Manifest]:
    """The children that serve clients.

    Raises:
        TemplateInvalid: see `templates`.
    """
    return [_service(inputs), _deployment(inputs), _budget(inputs)]


def _service(inputs: Inputs) -> Manifest:
    spec = {
        "selector": selector_labels(inputs.ref.name, GATEWAY),
        "ports": [
            {
                "name": "grpc",
                "port": GRPC_PORT,
                "targetPort": "grpc",
                "protocol": "TCP",
                "appProtocol": "https" if inputs.spec.security.gateway_tls_secret_name else "kubernetes.io/h2c",
            }
        ],
    }
    return child(inputs.ref, GATEWAY, "v1", "Service", {"name": gateway_name(inputs.ref.name), "spec": spec})


def _deployment(inputs: Inputs) -> Manifest:
    spec = {
        "replicas": inputs.spec.gateway.replicas,
        "revisionHistoryLimit": 3,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "selector": {"matchLabels": selector_labels(inputs.ref.name, GATEWAY)},
        "template": merge_template(_pod(inputs), of_gateway(inputs.spec.gateway)),
    }
    body = {"name": gateway_name(inputs.ref.name), "spec": spec}
    return child(inputs.ref, GATEWAY, "apps/v1", "Deployment", body)


def _budget(inputs: Inputs) -> Manifest:
    spec = {
        "maxUnavailable": 1,
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
        "selector": {"matchLabels": selector_labels(inputs.ref.name, GATEWAY)},
    }
    body = {"name": gateway_name(inputs.ref.name), "spec": spec}
    return child(inputs.ref, GATEWAY, "policy/v1", "PodDisruptionBudget", body)


def _pod(inputs: Inputs) -> Manifest:
    pool = inputs.ref.name
    spec = {
        "serviceAccountName": gateway_name(pool),
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": LEAVE_S + inputs.drain_s + CLOSE_S,
        "securityContext": pod_security(),
        **pull(inputs.images),
        "topologySpreadConstraints": [_spread(pool)],
        "containers": [_container(inputs)],
        "volumes": [
            config_volume(pool),
            tmp_volume(),
            *secret_volumes(gateway_secrets(inputs)),
            *gateway_volumes(inputs.spec.cache),
            *embedder_volumes(inputs.spec),
        ],
    }
    marks = {"labels": common_labels(pool, GATEWAY), "annotations": {CONFIG_HASH: digest(gateway_facts(inputs))}}
    return {"metadata": marks, "spec": spec}


def _spread(pool: str) -> Manifest:
    return {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": selector_labels(pool, GATEWAY)},
    }


def _container(inputs: Inputs) -> Manifest:
    """Ready = a worker is ready; alive = the process answers, workers or not."""
    return {
        "name": GATEWAY,
        "image": inputs.images.gateway,
        "imagePullPolicy": inputs.images.pull_policy,
        "command": ["python", "-m", "t2i_gateway"],
        "args": _arguments(inputs),
        "env": [*environment(), *store_environment(inputs.spec.cache)],
        "ports": [
            {"name": "grpc", "containerPort": GRPC_PORT, "protocol": "TCP"},
            {"name": "control", "containerPort": HEALTH_PORT, "protocol": "TCP"},
            {"name": "metrics", "containerPort": METRICS_PORT, "protocol": "TCP"},
        ],
        "startupProbe": grpc_probe(HEALTH_PORT, period_s=2, failures=150, service="liveness"),
        "readinessProbe": grpc_probe(HEALTH_PORT, period_s=2, failures=2),
        "livenessProbe": grpc_probe(HEALTH_PORT, period_s=10, failures=3, service="liveness"),
        "resources": {"requests": REQUESTS},
        "lifecycle": {"preStop": {"sleep": {"seconds": LEAVE_S}}},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": container_security(),
        "volumeMounts": [
            config_mount(),
            tmp_mount(),
            *secret_mounts(gateway_secrets(inputs)),
            *gateway_mounts(inputs.spec.cache),
            *embedder_mounts(inputs.spec),
        ],
    }


def _arguments(inputs: Inputs) -> list[str]:
    pairs = {
        "--pool": f"{CONFIG_FOLDER}/pool.yaml",
        "--profile": f"{CONFIG_FOLDER}/profile.json",
        "--kubernetes": inputs.ref.key,
        "--listen": f"[::]:{GRPC_PORT}",
        "--control-listen": f"[::]:{HEALTH_PORT}",
        "--metrics-listen": f"[::]:{METRICS_PORT}",
        "--store": gateway_store(inputs.spec.cache),
        **store_arguments(inputs),
        "--drain-s": str(inputs.drain_s),
    }
    arguments = [f"{flag}={value}" for flag, value in pairs.items()]
    return [*arguments, *gateway_arguments(inputs), *embedder_arguments(inputs.spec)]
