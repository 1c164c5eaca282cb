"""The pool as its owner wrote it: the `T2IServingPool` document, parsed once (pydantic, at the edge).

The same document is a file for `t2ictl local up` and, later, the custom resource: integers only (milliseconds,
percent, counts), camelCase on the outside. Unknown fields are errors that name the field.
"""

from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from t2i_policy.levels import Ladder, Level, build_ladder

API_VERSION = "t2iserving.dev/v1alpha1"
KIND = "T2IServingPool"
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,50}[a-z0-9])?$")]


class PoolError(ValueError):
    """The pool document is not valid; the message names each field and what it should be."""


class _Part(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


class ModelPart(_Part):
    """Which diffusers model every worker keeps warm, and its full schedule."""

    source: Annotated[str, Field(pattern=r"^(builtin|hf|file|pvc)://.+")]
    num_inference_steps: Annotated[int, Field(ge=1, le=1000)] = 50
    guidance_scale_percent: Annotated[int, Field(ge=0, le=3000)] = 700
    width: Annotated[int, Field(ge=8, le=8192)] = 1024
    height: Annotated[int, Field(ge=8, le=8192)] = 1024
    precision: Literal["fp32", "fp16", "bf16"] = "bf16"
    revision: str = ""

    @property
    def guidance_scale(self) -> float:
        """Classifier-free guidance scale; 1.0 = off."""
        return self.guidance_scale_percent / 100


class LevelPart(_Part):
    """One entry of the ladder; `numInferenceSteps` left out = the model's full schedule."""

    skipped_steps: Annotated[int, Field(ge=0)] = 0
    num_inference_steps: Annotated[int, Field(ge=1)] | None = None


class WorkerGroupPart(_Part):
    """A fixed number of equal workers of one device type. `template` is for Kubernetes; local mode ignores it.

    `profile` is where this device's measurements are: "" = the model's own, `builtin://NAME`, or `file://PATH` relative
    to the pool file.
    """

    name: Name
    workers: Annotated[int, Field(ge=1, le=1024)]
    engine: Literal["diffusion", "simulated"] = "diffusion"
    profile: Annotated[str, Field(pattern=r"^$|^(builtin|file)://.+")] = ""
    template: dict[str, Any] = Field(default_factory=dict)


class SloPart(_Part):
    """The pool's targets: latency of one image, and the quality it may bend to (percent of exact).

    `harmless_loss_percent` is what counts as no loss: levels within it are served even at rest, for fewer steps. 0 =
    quality bends under load only.
    """

    latency_milliseconds: Annotated[int, Field(ge=1)] = 20_000
    min_quality_percent: Annotated[int, Field(ge=0, le=100)] = 90
    harmless_loss_percent: Annotated[int, Field(ge=0, le=100)] = 1

    @property
    def latency_s(self) -> float:
        """The latency target in seconds."""
        return self.latency_milliseconds / 1e3

    @property
    def max_loss(self) -> float:
        """The floor as a fraction that may be lost."""
        return 1 - self.min_quality_percent / 100

    @property
    def harmless_loss(self) -> float:
        """What counts as no loss, as a fraction."""
        return self.harmless_loss_percent / 100


class CachePart(_Part):
    """The similar-prompt latent cache. `storeUrl` empty = a directory that the pool owns."""

    scope: Literal["Tenant", "Pool", "Off"] = "Tenant"
    store_url: str = ""
    ttl_seconds: Annotated[int, Field(ge=1)] = 86_400
    capacity_mebibytes: Annotated[int, Field(ge=1)] = 4096


class TenantPart(_Part):
    """A tenant's weight: its share of the pool when tenants compete. Tenants that are not listed weigh 1."""

    name: Annotated[str, Field(min_length=1, max_length=128)]
    weight: Annotated[int, Field(ge=1, le=1000)] = 1


class GatewayPart(_Part):
    """Bounds of the gateway: how many requests may wait, how many replicas run, and tenants that weigh more."""

    replicas: Annotated[int, Field(ge=1, le=64)] = 2
    max_queued_requests: Annotated[int, Field(ge=0, le=100_000)] = 256
    tenants: tuple[TenantPart, ...] = ()

    @property
    def tenant_weights(self) -> dict[str, float]:
        """Weight by tenant, of those listed."""
        return {tenant.name: float(tenant.weight) for tenant in self.tenants}


class MixPart(_Part):
    """How levels are chosen: `Auto` by prompt, load and deadline."""

    mode: Literal["Auto"] = "Auto"


class PoolSpec(_Part):
    """The `spec` of a pool."""

    model: ModelPart
    levels: tuple[LevelPart, ...] = ()
    mix: MixPart = MixPart()
    worker_groups: Annotated[tuple[WorkerGroupPart, ...], Field(min_length=1)]
    slo: SloPart = SloPart()
    cache: CachePart = CachePart()
    gateway: GatewayPart = GatewayPart()

    @model_validator(mode="after")
    def _check(self) -> "PoolSpec":
        names = [group.name for group in self.worker_groups]
        if len(set(names)) != len(names):
            raise ValueError(f"workerGroups: names must be unique, got {names}")
        _ = self.ladder
        return self

    @property
    def ladder(self) -> Ladder:
        """The checked ladder; no `levels` = the paper's skips at 0, 10, 20, 30, 40 and 50 percent of the schedule."""
        base = self.model.num_inference_steps
        if not self.levels:
            return build_ladder(base, {Level(base * tenth // 10, base) for tenth in range(6)})
        return build_ladder(base, (Level(lv.skipped_steps, lv.num_inference_steps or base) for lv in self.levels))


class PoolMeta(_Part):
    """`metadata`: only the name matters outside Kubernetes."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    name: Name


class Pool(_Part):
    """One `T2IServingPool` document."""

    api_version: Literal["t2iserving.dev/v1alpha1"]
    kind: Literal["T2IServingPool"]
    metadata: PoolMeta
    spec: PoolSpec


def parse_pool(text: str) -> Pool:
    """Parse one YAML document.

    Raises:
        PoolError: not YAML, or fields missing, unknown or out of range; one line a field.
    """
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise PoolError(f"the pool file is not valid YAML: {error}") from error
    if not isinstance(document, dict):
        raise PoolError(f"the pool file must be one mapping with apiVersion: {API_VERSION} and kind: {KIND}")
    try:
        return Pool.model_validate(document)
    except ValidationError as error:
        raise PoolError("\n".join(_describe(item) for item in error.errors())) from error


def _describe(item: Any) -> str:
    field = ".".join(str(part) for part in item["loc"]) or "document"
    return f"{field}: {item['msg']} (got {item.get('input')!r:.80})"
