"""The gateway's part of the pool's spec: how many run, how many requests wait, which tenants weigh more.

It also says what clients of the OpenAI Images API mean by a word for quality.
"""

from typing import Annotated, Literal

from pydantic import Field

from t2i_api.exposure import IngressPart, RoutePart
from t2i_api.part import Part as _Part
from t2i_api.results import ResultsPart
from t2i_api.template import GatewayTemplatePart


class TenantPart(_Part):
    """A tenant's weight: its share of the pool when tenants compete. Tenants that are not listed weigh 1."""

    name: Annotated[str, Field(min_length=1, max_length=128)]
    """The tenant's name as its requests carry it."""
    weight: Annotated[int, Field(ge=1, le=1000, strict=True)] = 1
    """Its share against the others' when the pool is full."""


QualityName = Literal["low", "medium", "high", "standard", "hd"]


class QualityPart(_Part):
    """What requests of the OpenAI Images API get that ask for this quality."""

    name: QualityName
    """The word that requests use."""
    min_quality_percent: Annotated[int, Field(ge=0, le=100, strict=True)] = 0
    """How far quality may bend for them, in percent of an exact image's; it can only raise slo.minQualityPercent."""
    exact: Annotated[bool, Field(strict=True)] = False
    """Run the full schedule, or refuse the request."""


#: For words that the pool does not list. `standard` and `hd` are what dall-e-3 called them.
DEFAULT_QUALITIES = (
    QualityPart(name="low"),
    QualityPart(name="medium", min_quality_percent=95),
    QualityPart(name="high", exact=True),
    QualityPart(name="standard"),
    QualityPart(name="hd", exact=True),
)


Rate = Annotated[int, Field(ge=1, le=1_000_000_000, strict=True)]


class TenantRatePart(_Part):
    """Rate limits of one tenant in place of those of all."""

    name: Annotated[str, Field(min_length=1, max_length=128)]
    """The tenant's name as its requests carry it."""
    requests_per_minute: Rate | None = None
    """As for all tenants, for this one. Left out: that of all."""
    steps_per_minute: Rate | None = None
    """As for all tenants, for this one. Left out: that of all."""


class RateLimitsPart(_Part):
    """What each tenant may have in a minute. Who was quiet may have a minute's worth at once."""

    requests_per_minute: Rate | None = None
    """Images that a tenant may ask for; a request for several counts each. Left out: no limit."""
    steps_per_minute: Rate | None = None
    """Denoising steps of a tenant's images, as their levels and sizes cost. Left out: no limit."""
    tenants: Annotated[tuple[TenantRatePart, ...], Field(max_length=256)] = ()
    """Tenants with other limits."""


class GatewayPart(_Part):
    """The gateway: how many replicas run, how many requests may wait, and tenants that weigh more."""

    replicas: Annotated[int, Field(ge=1, le=64, strict=True)] = 2
    """Gateways that run side by side."""
    max_queued_requests: Annotated[int, Field(ge=0, le=100_000, strict=True)] = 256
    """Requests that may wait in one gateway; the next is refused at once, with a time to come back."""
    tenants: Annotated[tuple[TenantPart, ...], Field(max_length=256)] = ()
    """Tenants with another weight than 1."""
    rate_limits: RateLimitsPart = RateLimitsPart()
    """What each tenant may have in a minute. Each gateway lets through its share: the limit divided by `replicas`."""
    http: Literal["Enabled", "Disabled"] = "Enabled"
    """Whether gateways speak the OpenAI Images API beside gRPC, at port 8080. Local mode goes by its own option."""
    playground: Literal["Enabled", "Disabled"] = "Disabled"
    """Whether gateways serve the playground at / of HTTP: a page that draws images, shows how busy the pool is, and
    puts made-up load on it. Who may call the pool may do all of that. In local mode it is on."""
    route: RoutePart | None = None
    """An HTTPRoute to the HTTP door, for clients outside the cluster. Needs the Gateway API. Local mode ignores it."""
    ingress: IngressPart | None = None
    """An Ingress to the HTTP door, for clients outside the cluster. Local mode ignores it."""
    results: ResultsPart | None = None
    """A bucket where images are kept whose request asks for links. Left out: such requests are refused."""
    qualities: Annotated[tuple[QualityPart, ...], Field(max_length=5)] = ()
    """What the words for quality mean in requests of the OpenAI Images API. Those that are not listed: low and standard
    are the pool's floor, medium is 95 percent, high and hd are exact."""
    template: GatewayTemplatePart = GatewayTemplatePart()
    """Overrides of the gateways' pod template: env, volumes, imagePullSecrets and more. Local mode ignores it."""

    def quality(self, name: QualityName) -> QualityPart:
        """What the word means in this pool."""
        return next(part for part in (*self.qualities, *DEFAULT_QUALITIES) if part.name == name)

    @property
    def is_led_to(self) -> bool:
        """A route or an ingress leads clients outside the cluster to its HTTP door."""
        return self.route is not None or self.ingress is not None

    @property
    def tenant_weights(self) -> dict[str, float]:
        """Weight by tenant, of those listed."""
        return {tenant.name: float(tenant.weight) for tenant in self.tenants}
