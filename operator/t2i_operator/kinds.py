"""Where the API server keeps what we read and write."""

from t2i_runtime.kube.kinds import POOL as POOL
from t2i_runtime.kube.kinds import ResourceKind as ResourceKind

POD = ResourceKind("Pod", "/api/v1", "pods")
EVENT = ResourceKind("Event", "/api/v1", "events")
CONFIG_MAP = ResourceKind("ConfigMap", "/api/v1", "configmaps")
LEASE = ResourceKind("Lease", "/apis/coordination.k8s.io/v1", "leases")

INGRESS = ResourceKind("Ingress", "/apis/networking.k8s.io/v1", "ingresses")
#: Of the Gateway API, which not every cluster has. It is not watched: a watch would have to begin when it comes.
HTTP_ROUTE = ResourceKind("HTTPRoute", "/apis/gateway.networking.k8s.io/v1", "httproutes", everywhere_served=False)

#: What a pool can have as children.
CHILD_KINDS = (
    CONFIG_MAP,
    ResourceKind("ServiceAccount", "/api/v1", "serviceaccounts"),
    ResourceKind("Role", "/apis/rbac.authorization.k8s.io/v1", "roles"),
    ResourceKind("RoleBinding", "/apis/rbac.authorization.k8s.io/v1", "rolebindings"),
    ResourceKind("NetworkPolicy", "/apis/networking.k8s.io/v1", "networkpolicies"),
    ResourceKind("Service", "/api/v1", "services"),
    ResourceKind("StatefulSet", "/apis/apps/v1", "statefulsets"),
    ResourceKind("Deployment", "/apis/apps/v1", "deployments"),
    ResourceKind("PodDisruptionBudget", "/apis/policy/v1", "poddisruptionbudgets"),
    INGRESS,
    HTTP_ROUTE,
)
CHILD_KIND = {kind.kind: kind for kind in CHILD_KINDS}
