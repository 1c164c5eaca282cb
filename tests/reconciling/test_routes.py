"""Ways in from outside the cluster: an Ingress and an HTTPRoute to the HTTP door, where a pool asks for them."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from operator_world import MERGE, Document, World, condition, pool_document
from t2i_api.parse import PoolError, read_pool
from t2i_api.pool import Pool
from t2i_operator.manifests import Images, Inputs, render_children
from t2i_operator.manifests.child import PoolRef
from t2i_operator.server import Operator

ROUTE = {
    "parents": [{"name": "public", "namespace": "edge", "sectionName": "https"}],
    "hostnames": ["images.example.com"],
}
INGRESS = {
    "host": "images.example.com",
    "className": "nginx",
    "tlsSecretName": "images-tls",
    "annotations": [{"name": "nginx.ingress.kubernetes.io/proxy-read-timeout", "value": "300"}],
}
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
ROUTES = "httproutes.gateway.networking.k8s.io"
#: The names of the Gateway API's own definition; its schema stays out, as the pool's route was held against it by hand.
DEFINITION: Document = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {
        "name": ROUTES,
        "annotations": {"api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/gateway-api/pull/2997"},
    },
    "spec": {
        "group": "gateway.networking.k8s.io",
        "scope": "Namespaced",
        "names": {"kind": "HTTPRoute", "listKind": "HTTPRouteList", "plural": "httproutes", "singular": "httproute"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}


def pool(**gateway: Any) -> Pool:
    """A pool whose gateway part says this."""
    return read_pool(pool_document(gateway={"replicas": 1, **gateway}))


def rendered(**gateway: Any) -> dict[str, Document]:
    """Children by kind and name."""
    ref = PoolRef("default", "p", "uid")
    children = render_children(Inputs(ref, pool(**gateway).spec, "{}", Images("gateway", "worker")))
    return {f"{one['kind']}/{one['metadata']['name']}": one for one in children}


def test_both_lead_to_the_http_port_of_the_gateways() -> None:
    """What a controller reads: which host, which certificate, which Service and port."""
    plain, asked = rendered(), rendered(route=ROUTE, ingress=INGRESS)
    assert set(asked) - set(plain) == {"HTTPRoute/p-gateway", "Ingress/p-gateway"}
    ports = {one["name"]: one["port"] for one in asked["Service/p-gateway"]["spec"]["ports"]}
    route, ingress = asked["HTTPRoute/p-gateway"], asked["Ingress/p-gateway"]
    assert route["apiVersion"] == "gateway.networking.k8s.io/v1"
    assert route["spec"] == {
        "parentRefs": ROUTE["parents"],
        "hostnames": ["images.example.com"],
        "rules": [
            {
                "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
                "backendRefs": [{"name": "p-gateway", "port": ports["http"]}],
            }
        ],
    }
    assert ingress["spec"]["ingressClassName"] == "nginx"
    assert ingress["spec"]["tls"] == [{"hosts": ["images.example.com"], "secretName": "images-tls"}]
    (rule,) = ingress["spec"]["rules"]
    assert rule["host"] == "images.example.com"
    assert rule["http"]["paths"][0]["backend"] == {"service": {"name": "p-gateway", "port": {"name": "http"}}}
    assert ingress["metadata"]["annotations"]["nginx.ingress.kubernetes.io/proxy-read-timeout"] == "300"


def test_asking_for_a_way_in_restarts_no_pod() -> None:
    """A gateway knows nothing of who leads clients to it."""
    plain, asked = rendered(), rendered(route=ROUTE, ingress=INGRESS)
    assert {key: asked[key] for key in plain} == plain


REFUSED = {
    "a closed door": ({"gateway": {"http": "Disabled", "ingress": INGRESS}}, "route and ingress lead to the HTTP door"),
    "client certificates, which end at the proxy": (
        {
            "gateway": {"route": ROUTE},
            "security": {"clientAuthentication": "MutualTLS", "gatewayTlsSecretName": "tls"},
        },
        "client certificates do not arrive",
    ),
    "a route to no Gateway": ({"gateway": {"route": {"parents": []}}}, r"gateway\.route\.parents"),
    "a host that is none": ({"gateway": {"ingress": {"host": "Images!"}}}, r"gateway\.ingress\.host"),
}


@pytest.mark.parametrize(("spec", "complaint"), REFUSED.values(), ids=REFUSED.keys())
def test_what_could_not_work_is_refused(spec: Document, complaint: str) -> None:
    """Told where it is written, rather than by a client that gets no answer."""
    with pytest.raises(PoolError, match=complaint):
        read_pool(pool_document(**spec))


@pytest.fixture
async def without_routes(world: World) -> AsyncIterator[World]:
    """A cluster without the Gateway API, before and after the test."""
    assert await world.find(f"{CRDS}/{ROUTES}") is None
    yield world
    if await world.find(f"{CRDS}/{ROUTES}") is not None:
        await world.call("DELETE", f"{CRDS}/{ROUTES}")


async def test_pool_serves_where_no_route_can_be_and_gets_it_later(without_routes: World, operator: Operator) -> None:
    """Whoever asks for a route before the Gateway API is there must be told, and must not lose the pool over it."""
    world, path = without_routes, f"/apis/gateway.networking.k8s.io/v1/namespaces/{without_routes.namespace}/httproutes"
    await world.create(pool_document(gateway={"replicas": 1, "route": ROUTE, "ingress": INGRESS}))
    await world.until_condition("Degraded", "True")
    told = condition(await world.pool(), "Degraded")
    assert told["reason"] == "RouteNotServed"
    assert "install the Gateway API" in told["message"]
    await world.bring_up()
    await world.until_condition("Ready", "True")
    ingress = await world.child("Ingress/p-gateway")
    assert ingress is not None
    assert ingress["spec"]["rules"][0]["host"] == "images.example.com"

    await world.call("POST", CRDS, DEFINITION)

    async def listed() -> Document | None:
        return await world.find(path)

    await world.wait("routes are served", listed, lambda found: found is not None)
    await world.change({"slo": {"latencyMilliseconds": 21_000}})  # the operator looks again by itself once a minute
    await world.wait("the route", listed, lambda found: bool(found and found["items"]))
    await world.until_condition("Degraded", "False")
    (route,) = (await world.call("GET", path))["items"]
    assert route["spec"]["parentRefs"][0]["name"] == "public"
    assert route["metadata"]["ownerReferences"][0]["kind"] == "T2IServingPool"

    await world.call("PATCH", world.pools("p"), {"spec": {"gateway": {"route": None, "ingress": None}}}, MERGE)
    await world.wait("no route", listed, lambda found: found is not None and not found["items"])
    await world.wait("no Ingress", world.children, lambda now: "Ingress/p-gateway" not in now)
