"""`spec.gateway.route` and `spec.gateway.ingress`: how clients outside the cluster reach the gateways' HTTP door."""

from typing import Annotated

from pydantic import Field

from t2i_api.part import Part
from t2i_api.security import SecretName

HostName = Annotated[
    str, Field(pattern=r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$", max_length=253)
]
ObjectName = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)]
OptionalNamespace = Annotated[str, Field(pattern=r"^$|^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
AnnotationName = Annotated[
    str, Field(pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$", max_length=317)
]


class ParentGatewayPart(Part):
    """A Gateway that a route attaches to."""

    name: ObjectName
    """Name of the Gateway."""
    namespace: OptionalNamespace = ""
    """Its namespace; empty: the pool's. It must allow routes from the pool's."""
    section_name: SecretName = ""
    """Name of one of its listeners; empty: all that fit."""


class RoutePart(Part):
    """An HTTPRoute of the Gateway API (gateway.networking.k8s.io/v1) to the gateways' HTTP door."""

    parents: Annotated[tuple[ParentGatewayPart, ...], Field(min_length=1, max_length=32)]
    """The Gateways that it attaches to."""
    hostnames: Annotated[tuple[HostName, ...], Field(max_length=16)] = ()
    """Names that clients ask for. Empty: those of the listeners."""


class AnnotationPart(Part):
    """An annotation of the Ingress: most controllers are set up by these."""

    name: AnnotationName
    """Its name, such as nginx.ingress.kubernetes.io/proxy-read-timeout."""
    value: Annotated[str, Field(max_length=4096)]
    """Its value."""


class IngressPart(Part):
    """An Ingress (networking.k8s.io/v1) to the gateways' HTTP door."""

    host: HostName
    """The name that clients ask for."""
    class_name: ObjectName | None = None
    """The IngressClass. Left out: the cluster's default one."""
    tls_secret_name: SecretName = ""
    """Secret (kubernetes.io/tls) with the certificate that the controller shows for the host; empty: no TLS there."""
    annotations: Annotated[tuple[AnnotationPart, ...], Field(max_length=64)] = ()
    """Annotations of the Ingress."""
