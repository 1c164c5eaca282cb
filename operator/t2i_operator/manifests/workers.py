"""A worker group: a headless Service, a StatefulSet and a disruption budget.

The group's devices are all taken, so a replacement can only start after its predecessor has gone: pods start in
parallel, roll one at a time and never surge. Levels are not in here: a level is a pod's label and the plan's business,
and changing it must never touch this template.
"""

from t2i_api.model import ModelPart
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
from t2i_api.pool import PoolSpec, WorkerGroupPart
from t2i_operator.manifests.child import CONFIG_HASH, Inputs, Manifest, child, digest, gateway_dns
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
    model_sources,
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
    ref, spec = inputs.ref, inputs.spec
    models = list(held_models(spec, group).values())
    security = secret_folders({"tls": spec.security.worker_tls_secret_name})
    folders = [
        config_folder(ref.name),
        TMP,
        *models_folders(models[0].source, (source for model in models for source in model_sources(model))),
        *certificates(spec.cache),
        *own_latents(spec.cache),
        *security,
    ]
    return {
        "metadata": {"labels": {**common_labels(ref.name, WORKER), GROUP_LABEL: group.name}, **_moving(inputs, group)},
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


def held_models(spec: PoolSpec, group: WorkerGroupPart) -> dict[str, ModelPart]:
    """What the workers of a group may hold, by name: the group's own first, and all others where workers move."""
    others = ("", *spec.models) if spec.mix.moves == "Reload" else ()
    return {name: spec.model_called(name) for name in (spec.group_models[group.name], *others)}


def _moving(inputs: Inputs, group: WorkerGroupPart) -> Manifest:
    """Workers that move read at their start what they may hold: another model of the pool restarts them."""
    if inputs.spec.mix.moves == "None":
        return {}
    models = held_models(inputs.spec, group)
    held = {name: model.model_dump(mode="json", exclude_defaults=True) for name, model in models.items()}
    return {"annotations": {CONFIG_HASH: digest(held)}}
