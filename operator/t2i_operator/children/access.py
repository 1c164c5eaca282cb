"""What a gateway may ask of the API server: read its own pool, and the endpoints of its namespace. Workers: nothing."""

from t2i_api.names import GATEWAY, GROUP, PLURAL, gateway_name
from t2i_operator.children.inputs import Inputs
from t2i_operator.manifests import Manifest, child

RBAC = "rbac.authorization.k8s.io"


def render_access(inputs: Inputs) -> list[Manifest]:
    """ServiceAccount, Role and RoleBinding of the gateway. The Role grants nothing that the operator itself lacks."""
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
