"""The auditor: a Deployment of one pod, its Service and its NetworkPolicy, all of them only with `spec.quality`.

It needs no device and holds nobody up: while it is away images are served as before, and none is audited. What it has
corrected outlives it in a ConfigMap that the operator writes (`decide.corrections`). It restarts when something changes
that its scores depend on: the judge, the profile, model and levels. How many images are audited is not among them.
"""

from t2i_api.audits import SCENES, AuditsPart
from t2i_api.names import (
    AUDITOR,
    GATEWAY,
    GRPC_PORT,
    HEALTH_PORT,
    METRICS_PORT,
    auditor_name,
    audits_name,
    common_labels,
    selector_labels,
)
from t2i_operator.manifests.child import CONFIG_HASH, Inputs, Manifest, child, digest, gateway_dns
from t2i_operator.manifests.network import (
    NETWORKING,
    operators,
    scrapers,
    tcp,
    to_name_servers,
    to_outside,
)
from t2i_operator.manifests.pod import (
    CLOSE_S,
    CONFIG_FOLDER,
    CONTAINER_SECURITY,
    ENVIRONMENT,
    LOAD_LIMIT_S,
    MODELS_FOLDER,
    POD_SECURITY,
    TMP,
    Folder,
    config_folder,
    grpc_probe,
    models_folder,
    pool_document,
    pull_secrets,
    secret_folders,
)
from t2i_operator.manifests.template import merge_template, of_auditor

AUDITS_FOLDER = "/etc/t2i-audits"
CORRECTIONS_KEY = "corrections.json"
#: Enough for the embedded judge. Networks take more, as `spec.quality.template` says. No limit.
REQUESTS = {"cpu": "100m", "memory": "512Mi"}
HUB_PORT = 443


def render_auditor(inputs: Inputs) -> list[Manifest]:
    """The children that audit; none without `spec.quality`.

    Raises:
        TemplateInvalid: see `template`.
    """
    audits = inputs.spec.quality
    if audits is None:
        return []
    name, selector = auditor_name(inputs.ref.name), selector_labels(inputs.ref.name, AUDITOR)
    service = {
        "selector": selector,
        "ports": [{"name": "grpc", "port": GRPC_PORT, "targetPort": "grpc", "protocol": "TCP"}],
    }
    deployment = {
        "replicas": 1,
        "revisionHistoryLimit": 3,
        "strategy": {"type": "Recreate"},  # two would count, and correct, the same images
        "selector": {"matchLabels": selector},
        "template": merge_template(auditor_pod(inputs, audits), of_auditor(audits)),
    }
    return [
        _policy(inputs, audits),
        child(inputs.ref, AUDITOR, "v1", "Service", {"name": name, "spec": service}),
        child(inputs.ref, AUDITOR, "apps/v1", "Deployment", {"name": name, "spec": deployment}),
    ]


def auditor_pod(inputs: Inputs, audits: AuditsPart) -> Manifest:
    """The template of the auditor's pod, before the owner's overrides."""
    ref, spec = inputs.ref, inputs.spec
    security = secret_folders({"tls": spec.security.worker_tls_secret_name})
    corrections = {"configMap": {"name": audits_name(ref.name), "optional": True}}
    folders = [
        config_folder(ref.name),
        Folder("audits", AUDITS_FOLDER, corrections, read_only=True),
        TMP,
        models_folder(audits.judge_source),
        *security,
    ]
    return {
        "metadata": {
            "labels": common_labels(ref.name, AUDITOR),
            "annotations": {CONFIG_HASH: audit_basis(inputs, audits)},
        },
        "spec": {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": inputs.drain_s + CLOSE_S,
            "securityContext": POD_SECURITY,
            **pull_secrets(inputs.images),
            "containers": [
                {
                    "name": AUDITOR,
                    "image": inputs.images.worker,
                    "imagePullPolicy": inputs.images.pull_policy,
                    "command": ["python", "-m", "t2i_auditor"],
                    "args": [
                        f"--pool={CONFIG_FOLDER}/pool.yaml",
                        f"--profile={CONFIG_FOLDER}/profile.json",
                        f"--corrections={AUDITS_FOLDER}/{CORRECTIONS_KEY}",
                        f"--listen=[::]:{GRPC_PORT}",
                        f"--control-listen=[::]:{HEALTH_PORT}",
                        f"--metrics-listen=[::]:{METRICS_PORT}",
                        f"--models-dir={MODELS_FOLDER}",
                        *(f"--tls-dir={folder.path}" for folder in security),
                        *([f"--gateway-name={gateway_dns(inputs)}"] if spec.security.workers_secured else []),
                    ],
                    "env": [*ENVIRONMENT],
                    "ports": [
                        {"name": "grpc", "containerPort": GRPC_PORT, "protocol": "TCP"},
                        {"name": "control", "containerPort": HEALTH_PORT, "protocol": "TCP"},
                        {"name": "metrics", "containerPort": METRICS_PORT, "protocol": "TCP"},
                    ],
                    "startupProbe": grpc_probe(HEALTH_PORT, period_s=5, failures=LOAD_LIMIT_S // 5),
                    "readinessProbe": grpc_probe(HEALTH_PORT, period_s=5, failures=2),
                    "livenessProbe": grpc_probe(HEALTH_PORT, period_s=10, failures=6, service="liveness"),
                    "resources": {"requests": REQUESTS},
                    "terminationMessagePolicy": "FallbackToLogsOnError",
                    "securityContext": CONTAINER_SECURITY,
                    "volumeMounts": [folder.mount for folder in folders],
                }
            ],
            "volumes": [folder.volume for folder in folders],
        },
    }


def audit_basis(inputs: Inputs, audits: AuditsPart) -> str:
    """A digest of what an auditor's scores depend on. What it says of another basis is out of date."""
    spec = pool_document(inputs)["spec"]
    parts = {name: spec.get(name) for name in ("model", "levels")}
    return digest({**parts, "profile": inputs.profile, "judge": audits.judge, "recalibrate": audits.recalibrate})


def _policy(inputs: Inputs, audits: AuditsPart) -> Manifest:
    """Gateways send images, the operator asks for what was measured. Out it goes for the judge alone."""
    pool = inputs.ref.name
    spec = {
        "podSelector": {"matchLabels": selector_labels(pool, AUDITOR)},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [
            {"from": [{"podSelector": {"matchLabels": selector_labels(pool, GATEWAY)}}], "ports": [tcp(GRPC_PORT)]},
            scrapers(inputs),
            {"from": [operators(inputs)], "ports": [tcp(HEALTH_PORT)]},
        ],
        "egress": [to_name_servers(), *_judge(audits), *to_outside([of_auditor(audits)])],
    }
    return child(inputs.ref, AUDITOR, NETWORKING, "NetworkPolicy", {"name": auditor_name(pool), "spec": spec})


def _judge(audits: AuditsPart) -> list[Manifest]:
    """Where the judge is, or where its weights are: published ones are on the hub."""
    if audits.is_service:
        return [{"ports": [tcp(audits.service_port)]}]
    published = audits.judge != SCENES and not audits.judge_source
    return [{"ports": [tcp(HUB_PORT)]}] if published or audits.judge_source.startswith("hf://") else []
