"""The pool as its owner wrote it: the classes of the `T2IServingPool` document, parsed once (see `parse`).

The same document is a file for `t2ictl local up` and the custom resource: integers only (milliseconds, percent,
counts), camelCase on the outside. Unknown fields are errors that name the field. The schema of the resource is
generated from these classes, descriptions included: what is said here is what `kubectl explain` says.
"""

from collections import Counter
from functools import cached_property
from itertools import islice
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from t2i_api.cache import Address, CachePart
from t2i_api.names import MAX_NAMES, ApiVersion, PoolKind
from t2i_api.part import Part as _Part
from t2i_api.security import SecurityPart
from t2i_api.template import GatewayTemplatePart, WorkerTemplatePart
from t2i_policy.level import Ladder, Level, build_ladder

DEFAULT_EMBEDDER = "hf://sentence-transformers/all-MiniLM-L6-v2"

# strict: as for the API server, "5", true and 5.0 are no whole numbers
Steps = Annotated[int, Field(ge=1, le=1000, strict=True)]
SkippedSteps = Annotated[int, Field(ge=0, le=999, strict=True)]
Pixels = Annotated[int, Field(ge=8, le=8192, multiple_of=8, strict=True)]
GroupName = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=MAX_NAMES - 1)]


class ModelPart(_Part):
    """The diffusers model that every worker keeps warm, and its full schedule. Immutable: latents and profile are
    measured for exactly this; for another model create another pool."""

    source: Annotated[Address, Field(pattern=r"^(builtin|hf|file|pvc)://.+")]
    """Where the weights are: builtin://scenes, hf://ORG/NAME, file:///PATH or pvc://CLAIM/PATH."""
    num_inference_steps: Steps = 50
    """Denoising steps of the full schedule: what an exact image takes."""
    guidance_scale_percent: Annotated[int, Field(ge=0, le=3000, strict=True)] = 700
    """Classifier-free guidance scale in percent: 700 is 7.0, 100 is off."""
    width: Pixels = 1024
    """Width of every image in pixels, a multiple of 8."""
    height: Pixels = 1024
    """Height of every image in pixels, a multiple of 8."""
    precision: Literal["fp32", "fp16", "bf16"] = "bf16"
    """Number format of the weights on the device."""
    revision: Annotated[str, Field(max_length=256)] = ""
    """Branch, tag or commit of a hf:// source; empty is its default branch."""
    embedder: Annotated[Address, Field(pattern=r"^$|^(builtin|hf|file|pvc)://.+")] = ""
    """What tells how alike two prompts are, which is what cached latents are found by: a sentence encoder with an ONNX
    export, such as hf://ORG/NAME[@REVISION] or pvc://CLAIM/PATH. Empty: a builtin model's own, all-MiniLM-L6-v2 of the
    hub for a hf:// source, and none for others: then no cached latent is ever used."""

    @property
    def embedder_source(self) -> str:
        """The embedder that is meant; empty = none."""
        if self.embedder:
            return self.embedder
        defaults = {"builtin": self.source, "hf": DEFAULT_EMBEDDER}
        return defaults.get(self.source.partition("://")[0], "")

    @property
    def guidance_scale(self) -> float:
        """Classifier-free guidance scale; 1.0 = off."""
        return self.guidance_scale_percent / 100


class LevelPart(_Part):
    """One way to spend fewer denoising steps: skip some by starting from a similar prompt's latent, or run a shorter
    schedule; not both."""

    skipped_steps: SkippedSteps = 0
    """Steps of the full schedule that a cached latent of a similar prompt stands for; 0 needs no cache."""
    num_inference_steps: Steps | None = None
    """Steps of the schedule; left out: the model's full schedule."""

    def level(self, base_steps: int) -> Level:
        """The level that is meant, given the model's full schedule."""
        return Level(self.skipped_steps, self.steps(base_steps))

    def steps(self, base_steps: int) -> int:
        """Steps of its schedule, given the model's full one."""
        return self.num_inference_steps or base_steps

    def spelled_out(self, base_steps: int) -> "LevelPart":
        """The same level with its schedule written down; two that mean the same are equal then."""
        return LevelPart(skipped_steps=self.skipped_steps, num_inference_steps=self.steps(base_steps))


def default_levels(base_steps: int) -> tuple[LevelPart, ...]:
    """The paper's levels: skips of 0, 10, 20, 30, 40 and 50 percent of the schedule."""
    return tuple(LevelPart(skipped_steps=base_steps * tenth // 10) for tenth in range(6))


class WorkerGroupPart(_Part):
    """A fixed number of equal workers of one device type."""

    name: GroupName
    """Name of the group, unique in the pool. Workers are called POOL-GROUP-NUMBER."""
    workers: Annotated[int, Field(ge=1, le=1024, strict=True)]
    """How many workers run, always: one device each. The pool bends quality, it does not scale."""
    engine: Literal["diffusion", "simulated"] = "diffusion"
    """What runs: the model, or a simulation of its timing for tests of scale. Immutable: add another group instead."""
    profile: Annotated[str, Field(max_length=512, pattern=r"^$|^(builtin|file)://.+")] = ""
    """Measurements of this device: empty for the model's own, builtin://NAME, or file://PATH beside the pool file."""
    template: WorkerTemplatePart = WorkerTemplatePart()
    """Overrides of the workers' pod template: resources, nodeSelector, env, volumes and more. Local mode ignores it."""


class ProfileRef(_Part):
    """A ConfigMap in the pool's namespace whose key `profile.json` is what `t2ictl profile` measured."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)]
    """Name of the ConfigMap."""


class SloPart(_Part):
    """The pool's targets."""

    latency_milliseconds: Annotated[int, Field(ge=1, le=3_600_000, strict=True)] = 20_000
    """Time within which an image should be there, from request to last byte."""
    min_quality_percent: Annotated[int, Field(ge=0, le=100, strict=True)] = 90
    """How far quality may bend under load, in percent of an exact image's; 100 never bends."""
    harmless_loss_percent: Annotated[int, Field(ge=0, le=100, strict=True)] = 1
    """What counts as no loss: levels within it are served even at rest, for fewer steps. 0 bends under load only."""

    @property
    def latency_s(self) -> float:
        return self.latency_milliseconds / 1e3

    @property
    def max_loss(self) -> float:
        """The floor as a fraction that may be lost."""
        return 1 - self.min_quality_percent / 100

    @property
    def harmless_loss(self) -> float:
        """What counts as no loss, as a fraction."""
        return self.harmless_loss_percent / 100


class TenantPart(_Part):
    """A tenant's weight: its share of the pool when tenants compete. Tenants that are not listed weigh 1."""

    name: Annotated[str, Field(min_length=1, max_length=128)]
    """The tenant's name as its requests carry it."""
    weight: Annotated[int, Field(ge=1, le=1000, strict=True)] = 1
    """Its share against the others' when the pool is full."""


class GatewayPart(_Part):
    """The gateway: how many replicas run, how many requests may wait, and tenants that weigh more."""

    replicas: Annotated[int, Field(ge=1, le=64, strict=True)] = 2
    """Gateways that run side by side."""
    max_queued_requests: Annotated[int, Field(ge=0, le=100_000, strict=True)] = 256
    """Requests that may wait in one gateway; the next is refused at once, with a time to come back."""
    tenants: Annotated[tuple[TenantPart, ...], Field(max_length=256)] = ()
    """Tenants with another weight than 1."""
    template: GatewayTemplatePart = GatewayTemplatePart()
    """Overrides of the gateways' pod template: env, volumes, imagePullSecrets and more. Local mode ignores it."""

    @property
    def tenant_weights(self) -> dict[str, float]:
        """Weight by tenant, of those listed."""
        return {tenant.name: float(tenant.weight) for tenant in self.tenants}


class MixWorkersPart(LevelPart):
    """So many workers at one of the pool's levels."""

    workers: Annotated[int, Field(ge=0, le=65_536, strict=True)]
    """Workers, of all groups, that stand at this level."""


class MixPart(_Part):
    """How many workers stand at which level."""

    mode: Literal["Auto", "Fixed"] = "Auto"
    """Auto: planned from demand and the measured profile. Fixed: workers stand as `workers` says, whatever comes, and
    prompts are served at their levels: at those that lose least as long as their workers keep up, then at the others.
    What a request's own floor forbids is served at what the prompt wants."""
    workers: Annotated[tuple[MixWorkersPart, ...], Field(max_length=32)] = ()
    """With mode Fixed: workers by level. They must sum to the workers of all groups."""


class PoolSpec(_Part):
    """What the pool should be."""

    model: ModelPart
    """The diffusers model that every worker keeps warm, and its full schedule. Immutable."""
    levels: Annotated[tuple[LevelPart, ...], Field(max_length=32)] = ()
    """The levels that requests may be served at, the exact one among them; empty: skips of 0, 10, 20, 30, 40 and 50
    percent of the schedule."""
    mix: MixPart = MixPart()
    """How many workers stand at which level."""
    worker_groups: Annotated[tuple[WorkerGroupPart, ...], Field(min_length=1, max_length=64)]
    """The pool's workers, by device type."""
    profile_ref: ProfileRef | None = None
    """The measured profile of the model; left out: the one of a builtin:// model. Local mode ignores it."""
    slo: SloPart = SloPart()
    """The pool's targets for latency and quality."""
    cache: CachePart = CachePart()
    """The cache of latents of earlier prompts."""
    gateway: GatewayPart = GatewayPart()
    """The gateways in front of the workers."""
    security: SecurityPart = SecurityPart()
    """Who may call, how callers prove who they are, and the certificates of gateways and workers."""

    @property
    def base_steps(self) -> int:
        """Steps of the model's full schedule."""
        return self.model.num_inference_steps

    @cached_property
    def ladder(self) -> Ladder:
        """The levels in order; none given = the default ones."""
        levels = self.levels or default_levels(self.base_steps)
        return build_ladder(self.base_steps, {part.level(self.base_steps) for part in levels})

    @property
    def total_workers(self) -> int:
        return sum(group.workers for group in self.worker_groups)

    @cached_property
    def pinned_workers(self) -> dict[tuple[str, Level], int]:
        """Workers by group and level as a Fixed mix asks for; empty with Auto. Levels of most steps fill the groups in
        their order.
        """
        wanted = {part.level(self.base_steps): part.workers for part in self.mix.workers}
        rows = sorted(wanted.items(), key=lambda item: (-item[0].steps_run, item[0]))
        levels = iter([level for level, count in rows for _ in range(count)])
        places = [(group, level) for group, size in self.group_sizes.items() for level in islice(levels, size)]
        return dict(Counter(places))

    @property
    def group_sizes(self) -> dict[str, int]:
        return {group.name: group.workers for group in self.worker_groups}


class PoolMeta(_Part):
    """`metadata`: only the name matters outside Kubernetes."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    name: str


class Pool(_Part):
    """One `T2IServingPool` document."""

    api_version: ApiVersion
    kind: PoolKind
    metadata: PoolMeta
    spec: PoolSpec
