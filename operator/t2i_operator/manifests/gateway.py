"""The gateway: a Deployment, its Service, a disruption budget, and what it may ask of the API server.

It restarts (rolling, a new one first) when something changes that it reads at its start: ladder, SLO, cache, tenants,
profile, what it does for audits, which Secrets. So it does when the owner changes its template. The mix, the worker
groups and the contents of Secrets are not among them: these are followed.
"""

from t2i_api.names import (
    GATEWAY,
    GROUP,
    GRPC_PORT,
    HEALTH_PORT,
    HTTP_PORT,
    METRICS_PORT,
    PLURAL,
    auditor_name,
    common_labels,
    gateway_name,
    selector_labels,
)
from t2i_operator.manifests.child import CONFIG_HASH, Inputs, Manifest, child, digest, worker_dns
from t2i_operator.manifests.pod import (
    CLOSE_S,
    CONFIG_FOLDER,
    CONTAINER_SECURITY,
    ENVIRONMENT,
    MODELS_FOLDER,
    POD_SECURITY,
    TMP,
    config_folder,
    disruption_budget,
    grpc_probe,
    models_folder,
    pool_document,
    pull_secrets,
    secret_folders,
)
from t2i_operator.manifests.store import certificates, gateway_store, store_environment, store_pool
from t2i_operator.manifests.template import merge_template, of_gateway

RBAC = "rbac.authorization.k8s.io"
LEAVE_S = 5  # until the last client has heard that this endpoint is going
#: Without a request its share of a busy node is a 250th of a worker's, and its start takes minutes. No limit: its
#: catalogue of similar prompts grows with the cache.
REQUESTS = {"cpu": "100m", "memory": "192Mi"}


def render_access(inputs: Inputs) -> list[Manifest]:
    """ServiceAccount, Role and RoleBinding: read its own pool, and the endpoints of its namespace. Workers get nothing.

    The Role grants nothing that the operator itself lacks.
    """
    name, ref = gateway_name(inputs.ref.name), inputs.ref
    rules = [
        {"apiGroups": [GROUP], "resources": [PLURAL], "resourceNames": [ref.name], "verbs": ["get", "list", "watch"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["get", "list", "watch"]},
    ]
    binding = {
        "name": name,
        "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": ref.namespace}],
    }
    return [
        child(ref, GATEWAY, "v1", "ServiceAccount", {"name": name}),
        child(ref, GATEWAY, f"{RBAC}/v1", "Role", {"name": name, "rules": rules}),
        child(ref, GATEWAY, f"{RBAC}/v1", "RoleBinding", binding),
    ]


def render_gateway(inputs: Inputs) -> list[Manifest]:
    """The children that serve clients.

    Raises:
        TemplateInvalid: see `template`.
    """
    name, selector = gateway_name(inputs.ref.name), selector_labels(inputs.ref.name, GATEWAY)
    secured = inputs.spec.security.gateway_tls_secret_name
    doors = {"grpc": (GRPC_PORT, "https" if secured else "kubernetes.io/h2c")}
    if inputs.spec.gateway.http == "Enabled":
        doors["http"] = (HTTP_PORT, "https" if secured else "http")
    service = {
        "selector": selector,
        "ports": [
            {"name": door, "port": port, "targetPort": door, "protocol": "TCP", "appProtocol": protocol}
            for door, (port, protocol) in doors.items()
        ],
    }
    deployment = {
        "replicas": inputs.spec.gateway.replicas,
        "revisionHistoryLimit": 3,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "selector": {"matchLabels": selector},
        "template": merge_template(gateway_pod(inputs), of_gateway(inputs.spec.gateway)),
    }
    return [
        child(inputs.ref, GATEWAY, "v1", "Service", {"name": name, "spec": service}),
        child(inputs.ref, GATEWAY, "apps/v1", "Deployment", {"name": name, "spec": deployment}),
        disruption_budget(inputs, GATEWAY, name, selector),
    ]


def gateway_pod(inputs: Inputs) -> Manifest:
    """The template of the gateway's pods, before the owner's overrides. Ready = a worker is ready; alive = the process
    answers, workers or not.
    """
    ref, spec = inputs.ref, inputs.spec
    security = secret_folders(
        {
            "tls": spec.security.gateway_tls_secret_name,
            "tokens": spec.security.tokens_secret_name,
            "worker-tls": spec.security.gateway_client_tls_secret_name,
            **{f"safety-{place}": part.secret_name for place, part in spec.safety.checks.items()},
            "results": spec.gateway.results.secret_name if spec.gateway.results is not None else "",
            "c2pa": spec.provenance.c2pa.secret_name if spec.provenance.c2pa is not None else "",
        }
    )
    embedder = spec.model.embedder_source if spec.cache.scope != "Off" else ""  # nothing is looked up then
    embedders = [models_folder(embedder)] if embedder.startswith(("hf://", "pvc://")) else []
    http = spec.gateway.http == "Enabled"
    folders = [config_folder(ref.name), TMP, *security, *certificates(spec.cache), *embedders]
    return {
        "metadata": {
            "labels": common_labels(ref.name, GATEWAY),
            "annotations": {CONFIG_HASH: digest(_read_at_start(inputs))},
        },
        "spec": {
            "serviceAccountName": gateway_name(ref.name),
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": LEAVE_S + inputs.drain_s + CLOSE_S,
            "securityContext": POD_SECURITY,
            **pull_secrets(inputs.images),
            "topologySpreadConstraints": [
                {
                    "maxSkew": 1,
                    "topologyKey": "kubernetes.io/hostname",
                    "whenUnsatisfiable": "ScheduleAnyway",
                    "labelSelector": {"matchLabels": selector_labels(ref.name, GATEWAY)},
                }
            ],
            "containers": [
                {
                    "name": GATEWAY,
                    "image": inputs.images.gateway,
                    "imagePullPolicy": inputs.images.pull_policy,
                    "command": ["python", "-m", "t2i_gateway"],
                    "args": [
                        f"--pool={CONFIG_FOLDER}/pool.yaml",
                        f"--profile={CONFIG_FOLDER}/profile.json",
                        f"--kubernetes={ref.key}",
                        f"--listen=[::]:{GRPC_PORT}",
                        *([f"--listen-http=[::]:{HTTP_PORT}"] if http else []),
                        f"--control-listen=[::]:{HEALTH_PORT}",
                        f"--metrics-listen=[::]:{METRICS_PORT}",
                        f"--store={gateway_store(spec.cache)}",
                        *store_pool(inputs),
                        f"--drain-s={inputs.drain_s}",
                        *(f"--{folder.name}-dir={folder.path}" for folder in security),
                        *([f"--worker-name={worker_dns(inputs)}"] if spec.security.workers_secured else []),
                        *([f"--auditor={_auditor_address(inputs)}"] if spec.quality is not None else []),
                        *([f"--embedder={embedder}"] if embedder else []),
                        *(f"--models-dir={MODELS_FOLDER}" for _ in embedders),
                    ],
                    "env": [*ENVIRONMENT, *store_environment(spec.cache)],
                    "ports": [
                        {"name": "grpc", "containerPort": GRPC_PORT, "protocol": "TCP"},
                        *([{"name": "http", "containerPort": HTTP_PORT, "protocol": "TCP"}] if http else []),
                        {"name": "control", "containerPort": HEALTH_PORT, "protocol": "TCP"},
                        {"name": "metrics", "containerPort": METRICS_PORT, "protocol": "TCP"},
                    ],
                    "startupProbe": grpc_probe(HEALTH_PORT, period_s=2, failures=150, service="liveness"),
                    "readinessProbe": grpc_probe(HEALTH_PORT, period_s=2, failures=2),
                    "livenessProbe": grpc_probe(HEALTH_PORT, period_s=10, failures=3, service="liveness"),
                    "resources": {"requests": REQUESTS},
                    "lifecycle": {"preStop": {"sleep": {"seconds": LEAVE_S}}},
                    "terminationMessagePolicy": "FallbackToLogsOnError",
                    "securityContext": CONTAINER_SECURITY,
                    "volumeMounts": [folder.mount for folder in folders],
                }
            ],
            "volumes": [folder.volume for folder in folders],
        },
    }


def _auditor_address(inputs: Inputs) -> str:
    return f"{auditor_name(inputs.ref.name)}.{inputs.ref.namespace}.svc:{GRPC_PORT}"


def _read_at_start(inputs: Inputs) -> Manifest:
    """What a gateway cannot take in while it runs."""
    spec = pool_document(inputs)["spec"]
    spec["security"].pop("metricsNamespaces", None)  # the NetworkPolicy's alone
    if inputs.spec.quality is not None:
        spec["quality"].pop("judge")  # the auditor's business
    models = {part.name: part.model_dump(mode="json", exclude_defaults=True) for part in inputs.spec.other_models}
    read = {key: value for key, value in spec.items() if key != "workerGroups"}
    return {"profile": inputs.profile, **read, **({"models": models} if models else {})}
