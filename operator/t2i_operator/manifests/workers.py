"""A worker group: a headless Service, a StatefulSet and a disruption budget.

The group's devices are all taken, so a replacement can only start after its predecessor has gone: pods start in
parallel, roll one at a time and never surge. Levels are not in here: a level is a pod's label and the plan's business,
and changing it must never touch this template.
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
from t2i_operator.manifests.child import Inputs, Manifest, child, gateway_dns
from t2i_operator.manifests.pod import (
    CLOSE_S,
    CONFIG_FOLDER,
    CONTAINER_SECURITY,
    ENVIRONMENT,
    LOAD_LIMIT_S,
    MODELS_FOLDER,
    POD_SECURITY,
    TMP,
    config_folder,
    disruption_budget,
    grpc_probe,
    models_folders,
    pull_secrets,
    secret_folders,
)
from t2i_operator.manifests.store import certificates, own_latents, store_environment, store_pool, worker_store
from t2i_operator.manifests.template import merge_template, of_group


def render_group(inputs: Inputs, group: WorkerGroupPart) -> list[Manifest]:
    """The children of one group.

    Raises:
        TemplateInvalid: see `template`.
    """
    name = group_name(inputs.ref.name, group.name)
    selector = {**selector_labels(inputs.ref.name, WORKER), GROUP_LABEL: group.name}
    service = {
        "clusterIP": "None",
        "publishNotReadyAddresses": True,  # the gateway asks workers itself whether they are ready
        "selector": selector,
        "ports": [{"name": "grpc", "port": GRPC_PORT, "targetPort": "grpc", "protocol": "TCP"}],
    }
    stateful_set = {
        "replicas": group.workers,
        "serviceName": name,
        "podManagementPolicy": "Parallel",
        "updateStrategy": {"type": "RollingUpdate"},  # one at a time, the old one first
        "revisionHistoryLimit": 3,
        "selector": {"matchLabels": selector},
        "template": merge_template(worker_pod(inputs, group), of_group(group)),
    }
    return [
        child(inputs.ref, WORKER, "v1", "Service", {"name": name, "spec": service}),
        child(inputs.ref, WORKER, "apps/v1", "StatefulSet", {"name": name, "spec": stateful_set}),
        disruption_budget(inputs, WORKER, name, selector),
    ]


def worker_pod(inputs: Inputs, group: WorkerGroupPart) -> Manifest:
    """The template of a group's pods, before the owner's overrides."""
    ref, spec, model = inputs.ref, inputs.spec, inputs.spec.model
    beside = [part.source for part in model.adapters] + [part.source for part in model.components]
    security = secret_folders({"tls": spec.security.worker_tls_secret_name})
    folders = [
        config_folder(ref.name),
        TMP,
        *models_folders(model.source, [model.preview_decoder, *beside]),
        *certificates(spec.cache),
        *own_latents(spec.cache),
        *security,
    ]
    return {
        "metadata": {"labels": {**common_labels(ref.name, WORKER), GROUP_LABEL: group.name}},
        "spec": {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": inputs.drain_s + CLOSE_S,
            "securityContext": POD_SECURITY,
            **pull_secrets(inputs.images),
            "containers": [
                {
                    "name": WORKER,
                    "image": inputs.images.worker,
                    "imagePullPolicy": inputs.images.pull_policy,
                    "command": ["python", "-m", "t2i_worker"],
                    "args": [
                        f"--pool={CONFIG_FOLDER}/pool.yaml",
                        f"--profile={CONFIG_FOLDER}/profile.json",
                        f"--group={group.name}",
                        "--name=$(POD_NAME)",
                        f"--listen=[::]:{GRPC_PORT}",
                        f"--health-listen=[::]:{HEALTH_PORT}",
                        f"--metrics-listen=[::]:{METRICS_PORT}",
                        *store_pool(inputs),
                        f"--models-dir={MODELS_FOLDER}",
                        f"--drain-s={inputs.drain_s}",
                        *worker_store(spec.cache),
                        *(f"--tls-dir={folder.path}" for folder in security),
                        *([f"--gateway-name={gateway_dns(inputs)}"] if spec.security.workers_secured else []),
                    ],
                    "env": [*ENVIRONMENT, *store_environment(spec.cache)],
                    "ports": [
                        {"name": "grpc", "containerPort": GRPC_PORT, "protocol": "TCP"},
                        {"name": "health", "containerPort": HEALTH_PORT, "protocol": "TCP"},
                        {"name": "metrics", "containerPort": METRICS_PORT, "protocol": "TCP"},
                    ],
                    "startupProbe": grpc_probe(HEALTH_PORT, period_s=5, failures=LOAD_LIMIT_S // 5),
                    "readinessProbe": grpc_probe(HEALTH_PORT, period_s=5, failures=2),
                    "livenessProbe": grpc_probe(HEALTH_PORT, period_s=10, failures=6),
                    "terminationMessagePolicy": "FallbackToLogsOnError",  # says why a model is not up
                    "securityContext": CONTAINER_SECURITY,
                    "volumeMounts": [folder.mount for folder in folders],
                }
            ],
            "volumes": [folder.volume for folder in folders],
        },
    }
