"""How clients outside the cluster reach the HTTP door: an HTTPRoute, an Ingress, or both. Neither unless asked for.

They send everything to the gateway's Service. How long their proxies wait for an image is a matter of the proxy: the
timeouts of HTTPRoute are younger than its v1, and those of an Ingress are annotations.
"""

from t2i_api.names import GATEWAY, HTTP_PORT, gateway_name
from t2i_operator.kinds import HTTP_ROUTE, INGRESS
from t2i_operator.manifests.child import Inputs, Manifest, child


def render_outside(inputs: Inputs) -> list[Manifest]:
    """What the spec asks for."""
    return [*_route(inputs), *_ingress(inputs)]


def _route(inputs: Inputs) -> list[Manifest]:
    part = inputs.spec.gateway.route
    if part is None:
        return []
    name = gateway_name(inputs.ref.name)
    parents = [
        {
            "name": parent.name,
            **({"namespace": parent.namespace} if parent.namespace else {}),
            **({"sectionName": parent.section_name} if parent.section_name else {}),
        }
        for parent in part.parents
    ]
    everything = {"path": {"type": "PathPrefix", "value": "/"}}
    spec = {
        "parentRefs": parents,
        **({"hostnames": list(part.hostnames)} if part.hostnames else {}),
        "rules": [{"matches": [everything], "backendRefs": [{"name": name, "port": HTTP_PORT}]}],
    }
    return [child(inputs.ref, GATEWAY, HTTP_ROUTE.api_version, HTTP_ROUTE.kind, {"name": name, "spec": spec})]


def _ingress(inputs: Inputs) -> list[Manifest]:
    part = inputs.spec.gateway.ingress
    if part is None:
        return []
    name = gateway_name(inputs.ref.name)
    backend = {"service": {"name": name, "port": {"name": "http"}}}
    paths = {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}
    spec = {
        **({"ingressClassName": part.class_name} if part.class_name else {}),
        **({"tls": [{"hosts": [part.host], "secretName": part.tls_secret_name}]} if part.tls_secret_name else {}),
        "rules": [{"host": part.host, "http": paths}],
    }
    said = {one.name: one.value for one in part.annotations}
    return [child(inputs.ref, GATEWAY, INGRESS.api_version, INGRESS.kind, {"name": name, "spec": spec}, said)]
