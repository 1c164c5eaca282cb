"""Names that the components share: the resource and its API, children of a pool, labels, annotations, ports.

A child is ours by the UID of its owner, never by its name or labels: names are for people and for DNS.
"""

from typing import Literal, get_args

from t2i_policy.level import Level

ApiVersion = Literal["t2iserving.dev/v1alpha1"]
PoolKind = Literal["T2IServingPool"]
(API_VERSION,) = get_args(ApiVersion)
(KIND,) = get_args(PoolKind)
GROUP, _, VERSION = API_VERSION.partition("/")
PLURAL = "t2iservingpools"
MAX_NAMES = 51  # POOL-GROUP names a StatefulSet, and its pods carry that name and a hash in a label of 63 characters
MAX_LABEL = 63
FIELD_MANAGER = "t2i-operator"

POOL_LABEL = f"{GROUP}/pool"
GROUP_LABEL = f"{GROUP}/group"
LEVEL_LABEL = f"{GROUP}/level"
COMPONENT_LABEL = "app.kubernetes.io/component"
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
HASH_ANNOTATION = f"{GROUP}/rendered-hash"
POOL_UID_ANNOTATION = f"{GROUP}/pool-uid"

WORKER = "worker"
GATEWAY = "gateway"
AUDITOR = "auditor"
GRPC_PORT = 50051
HTTP_PORT = 8080
HEALTH_PORT = 50052
METRICS_PORT = 9090


def config_name(pool: str) -> str:
    """The ConfigMap with the pool document and the profile."""
    return f"{pool}-config"


def gateway_name(pool: str) -> str:
    """Deployment, Service, ServiceAccount, Role ... of the gateway."""
    return f"{pool}-gateway"


def auditor_name(pool: str) -> str:
    """Deployment, Service and NetworkPolicy of the auditor."""
    return f"{pool}-auditor"


def audits_name(pool: str) -> str:
    """The ConfigMap with the corrections in force, and how they came about."""
    return f"{pool}-audits"


def workers_name(pool: str) -> str:
    """What all worker groups share: the NetworkPolicy."""
    return f"{pool}-workers"


def group_name(pool: str, group: str) -> str:
    """StatefulSet and headless Service of a worker group; pods are called this and a number."""
    return f"{pool}-{group}"


def level_value(level: Level) -> str:
    """The value of a pod's level label, `SKIPPED-of-STEPS.f2.unipc`: slash and plus are not allowed there. A level of
    another model begins with its name, as far as a label has room."""
    steps = f"{level.skipped_steps}-of-{level.num_inference_steps}"
    value = ".".join([steps, *level.marks]).replace("+", "p")
    return f"{level.model[: max(0, MAX_LABEL - 1 - len(value))]}.{value}" if level.model else value


def common_labels(pool: str, component: str) -> dict[str, str]:
    """Labels of every child by the conventions of Kubernetes, and ours."""
    return {
        "app.kubernetes.io/name": "t2i-serving",
        "app.kubernetes.io/instance": pool,
        COMPONENT_LABEL: component,
        "app.kubernetes.io/part-of": "t2i-serving",
        MANAGED_BY_LABEL: FIELD_MANAGER,
        POOL_LABEL: pool,
    }


def selector_labels(pool: str, component: str) -> dict[str, str]:
    """What selects the pods of a component; never changes, as selectors are immutable."""
    return {"app.kubernetes.io/instance": pool, COMPONENT_LABEL: component, POOL_LABEL: pool}
