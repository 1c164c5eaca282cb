"""A worker group: a headless Service, a StatefulSet and a disruption budget.

The group's devices are all taken, so a replacement can only start after its predecessor has gone: pods start in
parallel, roll one at a time and never surge (decision 6). Levels are not in here: a level is a pod's label and the
plan's business, and changing it must never touch this template (decision 2).
"""

from t2i_api.names import (
    GROUP_LABEL,
    GRPC_PORT,
    HEALTH_PORT,
    METRICS_PORT,
    WORKER,
    common_labels,
    group_name,
    selector_labels,
)
from t2i_api.pool import WorkerGroupPart
from t2i_operator.children.inputs import Inputs
from t2i_operator.children.models import MODELS_FOLDER, models_mount, models_volume
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
from t2i_operator.children.securing import secret_mounts, secret_volumes, worker_arguments, worker_secrets
from t2i_operator.children.storing import (
    cache_mounts,
    cache_volumes,
    store_arguments,
    store_environment,
    worker_store,
)
from t2i_operator.children.templates import merge_template, of_group
from t2i_operator.manifests import Manifest, child

LOAD_LIMIT_S = 3600  # weights may come over a slow line


def render_group(inputs: Inputs, group: WorkerGroupPart) -> list[Manifest]:
    """The children of one group.

    Raises:
        TemplateInvalid: see `templates`.
    """
    return [_service(inputs, group), _stateful_set(inputs, group), _budget(inputs, group)]


def _selector(inputs: Inputs, group: WorkerGroupPart) -> dict[str, str]:
    return {**selector_labels(inputs.ref.name, WORKER), GROUP_LABEL: group.name}


def _service(inputs: Inputs, group: WorkerGroupPart) -> Manifest:
    """Headless, and workers that are not ready are in it: the gateway asks them itself."""
    spec = {
        "clusterIP": "None",
        "publishNotReadyAddresses": True,
        "selector": _selector(inputs, group),
        "ports": [{"name": "grpc", "port": GRPC_PORT, "targetPort": "grpc", "protocol": "TCP"}],
    }
    return child(inputs.ref, WORKER, "v1", "Service", {"name": group_name(inputs.ref.name, group.name), "spec": spec})


def _stateful_set(inputs: Inputs, group: WorkerGroupPart) -> Manifest:
    name = group_name(inputs.ref.name, group.name)
    spec = {
        "replicas": group.workers,
        "serviceName": name,
        "podManagementPolicy": "Parallel",
        "updateStrategy": {"type": "RollingUpdate"},  # one at a time, the old one first
        "revisionHistoryLimit": 3,
        "selector": {"matchLabels": _selector(inputs, group)},
        "template": merge_template(_pod(inputs, group), of_group(group)),
    }
    return child(inputs.ref, WORKER, "apps/v1", "StatefulSet", {"name": name, "spec": spec})


def _budget(inputs: Inputs, group: WorkerGroupPart) -> Manifest:
    spec = {
        "maxUnavailable": 1,
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
        "selector": {"matchLabels": _selector(inputs, group)},
    }
    name = group_name(inputs.ref.name, group.name)
    return child(inputs.ref, WORKER, "policy/v1", "PodDisruptionBudget", {"name": name, "spec": spec})


def _pod(inputs: Inputs, group: WorkerGroupPart) -> Manifest:
    pool = inputs.ref.name
    spec = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": inputs.drain_s + CLOSE_S,
        "securityContext": pod_security(),
        **pull(inputs.images),
        "containers": [_container(inputs, group)],
        "volumes": [
            config_volume(pool),
            tmp_volume(),
            models_volume(inputs.spec.model.source),
            *cache_volumes(inputs.spec.cache),
            *secret_volumes(worker_secrets(inputs)),
        ],
    }
    return {"metadata": {"labels": {**common_labels(pool, WORKER), GROUP_LABEL: group.name}}, "spec": spec}


def _container(inputs: Inputs, group: WorkerGroupPart) -> Manifest:
    mounts = [
        config_mount(),
        tmp_mount(),
        models_mount(inputs.spec.model.source),
        *cache_mounts(inputs.spec.cache),
        *secret_mounts(worker_secrets(inputs)),
    ]
    return {
        "name": WORKER,
        "image": inputs.images.worker,
        "imagePullPolicy": inputs.images.pull_policy,
        "command": ["python", "-m", "t2i_worker"],
        "args": _arguments(inputs, group),
        "env": [*environment(), *store_environment(inputs.spec.cache)],
        "ports": [
            {"name": "grpc", "containerPort": GRPC_PORT, "protocol": "TCP"},
            {"name": "health", "containerPort": HEALTH_PORT, "protocol": "TCP"},
            {"name": "metrics", "containerPort": METRICS_PORT, "protocol": "TCP"},
        ],
        "startupProbe": grpc_probe(HEALTH_PORT, period_s=5, failures=LOAD_LIMIT_S // 5),
        "readinessProbe": grpc_probe(HEALTH_PORT, period_s=5, failures=2),
        "livenessProbe": grpc_probe(HEALTH_PORT, period_s=10, failures=6),
        "terminationMessagePolicy": "FallbackToLogsOnError",  # "why is my model not up" is answered from here
        "securityContext": container_security(),
        "volumeMounts": mounts,
    }


def _arguments(inputs: Inputs, group: WorkerGroupPart) -> list[str]:
    pairs = {
        "--pool": f"{CONFIG_FOLDER}/pool.yaml",
        "--profile": f"{CONFIG_FOLDER}/profile.json",
        "--group": group.name,
        "--name": "$(POD_NAME)",
        "--listen": f"[::]:{GRPC_PORT}",
        "--health-listen": f"[::]:{HEALTH_PORT}",
        "--metrics-listen": f"[::]:{METRICS_PORT}",
        **store_arguments(inputs),
        "--models-dir": MODELS_FOLDER,
        "--drain-s": str(inputs.drain_s),
    }
    arguments = [f"{flag}={value}" for flag, value in pairs.items()]
    return [*arguments, *worker_store(inputs.spec.cache), *worker_arguments(inputs)]
