"""Who may talk to whom: clients to gateways, the operator to control ports, gateways to workers and to the auditor,
nobody else. The auditor's own policy is with its other children.

Workers reach name servers and the latent store, and the model hub if the source is there. A variable in a pod's
template may name a proxy, a mirror of the hub or a collector of traces. The pod reaches its port, too. Values in
Secrets and ConfigMaps are not read, so their ports are not known: a NetworkPolicy of the owner's adds them.

The control port answers in clear (the kubelet's probes know no TLS), so only the operator's pods in the operator's own
namespace reach it; probes come from the node, which no policy holds back. Metrics count all tenants together, and a
counter that moves just after somebody else's request tells something: once callers are told apart, only namespaces that
the pool names may scrape.
"""

from collections.abc import Iterable, Iterator
from urllib.parse import urlsplit

from t2i_api.names import (
    AUDITOR,
    COMPONENT_LABEL,
    GATEWAY,
    GRPC_PORT,
    HEALTH_PORT,
    HTTP_PORT,
    METRICS_PORT,
    WORKER,
    gateway_name,
    selector_labels,
    workers_name,
)
from t2i_operator.errors import TemplateInvalid
from t2i_operator.manifests.child import Inputs, Manifest, child
from t2i_operator.manifests.pod import model_sources
from t2i_operator.manifests.store import store_port
from t2i_operator.manifests.template import Overrides, of_gateway, of_group

NETWORKING = "networking.k8s.io/v1"
OPERATOR_LABELS = {"app.kubernetes.io/name": "t2i-serving", COMPONENT_LABEL: "operator"}
HTTPS_PORTS = (443, 6443)  # the API server's Service and the server itself
OUTSIDE_VARIABLES = (
    *("hf_endpoint", "http_proxy", "https_proxy", "all_proxy"),
    *("otel_exporter_otlp_endpoint", "otel_exporter_otlp_traces_endpoint"),
)
SCHEME_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}


def render_policies(inputs: Inputs) -> list[Manifest]:
    """One policy for the gateways, one for all workers.

    Raises:
        TemplateInvalid: a template names a proxy, a mirror or a collector that is no address.
    """
    return [_gateway(inputs), _workers(inputs)]


def _gateway(inputs: Inputs) -> Manifest:
    pool = inputs.ref.name
    spec = {
        "podSelector": {"matchLabels": selector_labels(pool, GATEWAY)},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [
            {"ports": [tcp(GRPC_PORT), *([tcp(HTTP_PORT)] if inputs.spec.gateway.http == "Enabled" else [])]},
            scrapers(inputs),
            {"from": [operators(inputs)], "ports": [tcp(HEALTH_PORT)]},
        ],
        "egress": [
            to_name_servers(),
            {"to": [{"podSelector": {"matchLabels": selector_labels(pool, WORKER)}}], "ports": [tcp(GRPC_PORT)]},
            *_auditor(inputs),
            {"ports": [tcp(port) for port in HTTPS_PORTS]},
            *_store(inputs),
            *_safety(inputs),
            *_results(inputs),
            *to_outside([of_gateway(inputs.spec.gateway)]),
        ],
    }
    return child(inputs.ref, GATEWAY, NETWORKING, "NetworkPolicy", {"name": gateway_name(pool), "spec": spec})


def _workers(inputs: Inputs) -> Manifest:
    pool = inputs.ref.name
    models = (inputs.spec.model, *inputs.spec.models.values())
    from_hub = any(source.startswith("hf://") for model in models for source in model_sources(model))
    hub = [{"ports": [tcp(443)]}] if from_hub else []
    spec = {
        "podSelector": {"matchLabels": selector_labels(pool, WORKER)},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [
            {"from": [{"podSelector": {"matchLabels": selector_labels(pool, GATEWAY)}}], "ports": [tcp(GRPC_PORT)]},
            scrapers(inputs),
        ],
        "egress": [to_name_servers(), *hub, *_store(inputs), *to_outside(map(of_group, inputs.spec.worker_groups))],
    }
    return child(inputs.ref, WORKER, NETWORKING, "NetworkPolicy", {"name": workers_name(pool), "spec": spec})


def operators(inputs: Inputs) -> Manifest:
    """The operator's pods, in its own namespace if that is known."""
    home = inputs.images.operator_namespace
    return {"namespaceSelector": _called(home) if home else {}, "podSelector": {"matchLabels": OPERATOR_LABELS}}


def scrapers(inputs: Inputs) -> Manifest:
    """Who may read metrics."""
    part = inputs.spec.security
    if not part.authenticated and not part.metrics_namespaces:
        return {"ports": [tcp(METRICS_PORT)]}
    names = part.metrics_namespaces or (inputs.ref.namespace,)
    return {"from": [{"namespaceSelector": _called(name)} for name in names], "ports": [tcp(METRICS_PORT)]}


def _called(namespace: str) -> Manifest:
    return {"matchLabels": {"kubernetes.io/metadata.name": namespace}}


def tcp(port: int) -> Manifest:
    """A port of a rule."""
    return {"port": port, "protocol": "TCP"}


def to_name_servers() -> Manifest:
    """Wherever these are."""
    return {"ports": [{"port": 53, "protocol": "UDP"}, tcp(53)]}


def _auditor(inputs: Inputs) -> list[Manifest]:
    if inputs.spec.quality is None:
        return []
    pods = {"matchLabels": selector_labels(inputs.ref.name, AUDITOR)}
    return [{"to": [{"podSelector": pods}], "ports": [tcp(GRPC_PORT)]}]


def _store(inputs: Inputs) -> list[Manifest]:
    port = store_port(inputs.spec.cache)
    return [] if port is None else [{"ports": [tcp(port)]}]


def _safety(inputs: Inputs) -> list[Manifest]:
    """The pool's classifiers, where they are not at a port that is open anyway."""
    ports = sorted({part.port for part in inputs.spec.safety.checks.values()} - {*HTTPS_PORTS})
    return [{"ports": [tcp(port) for port in ports]}] if ports else []


def _results(inputs: Inputs) -> list[Manifest]:
    """Where images are kept for links, if not at a port that is open anyway."""
    part = inputs.spec.gateway.results
    return [] if part is None or part.port in HTTPS_PORTS else [{"ports": [tcp(part.port)]}]


def to_outside(everything: Iterable[Overrides]) -> list[Manifest]:
    """Ports that variables of these templates name: each once, in order."""
    ports = sorted({port for overrides in everything for port in _outside_ports(overrides)})
    return [{"ports": [tcp(port) for port in ports]}] if ports else []


def _outside_ports(overrides: Overrides) -> Iterator[int]:
    for one in overrides.template.get("env", ()):
        value = one.get("value")
        if one["name"].lower() in OUTSIDE_VARIABLES and isinstance(value, str) and value:
            yield _port(value, f"{overrides.field}: env {one['name']}")


def _port(value: str, field: str) -> int:
    """An address without a scheme is one of a plain proxy, as curl takes it."""
    try:
        parts = urlsplit(value if "://" in value else f"http://{value}")
        port = parts.port or SCHEME_PORTS.get(parts.scheme)
    except ValueError:
        port = None
    if port is None:
        raise TemplateInvalid(f"{field} must be an address such as http://HOST:PORT")
    return port
