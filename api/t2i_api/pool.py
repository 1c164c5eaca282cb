"""The pool as its owner wrote it: the classes of the `T2IServingPool` document, parsed once (see `parse`).

The same document is a file for `t2ictl local up` and the custom resource: integers only (milliseconds, percent,
counts), camelCase on the outside. Unknown fields are errors that name the field. The schema of the resource is
generated from these classes, descriptions included: what is said here is what `kubectl explain` says.
"""

from collections import Counter
from collections.abc import Iterable
from functools import cached_property
from itertools import islice
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from t2i_api.audits import AuditsPart
from t2i_api.cache import CachePart
from t2i_api.gateway import GatewayPart
from t2i_api.levels import LevelPart, default_levels
from t2i_api.measured import check_measured
from t2i_api.model import GroupModelPart, ModelPart
from t2i_api.names import MAX_NAMES, ApiVersion, PoolKind
from t2i_api.part import Part as _Part
from t2i_api.provenance import ProvenancePart
from t2i_api.safety import SafetyPart
from t2i_api.security import SecurityPart
from t2i_api.template import WorkerTemplatePart
from t2i_policy.frontier import ChosenLadder, LadderSource, choose_ladder
from t2i_policy.level import Ladder, Level, build_ladder
from t2i_policy.profile import LevelProfile

GroupName = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=MAX_NAMES - 1)]


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
    model: GroupModelPart | None = None
    """Another model that the group's workers hold in place of spec.model, such as a distilled one of few steps.
    Immutable: add another group instead. At least one group holds spec.model."""
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
    moves: Literal["None", "Reload"] = "None"
    """With several models. Reload: the plan may have a worker load another of the pool's models, one at a time, where
    what that brings pays for the time of the reload. None: each group holds its model."""
    workers: Annotated[tuple[MixWorkersPart, ...], Field(max_length=32)] = ()
    """With mode Fixed: workers by level. They must sum to the workers of all groups."""


class PoolSpec(_Part):
    """What the pool should be."""

    model: ModelPart
    """The diffusers model that workers keep warm where their group names no other, and its full schedule. Immutable."""
    levels: Annotated[tuple[LevelPart, ...], Field(max_length=32)] = ()
    """The levels that requests may be served at, the exact one among them; empty: those of the profile that no cheaper
    one beats, or, where it measured skips alone, skips of 0, 10, 20, 30, 40 and 50 percent of the schedule."""
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
    provenance: ProvenancePart = ProvenancePart()
    """What image files say about how they were made."""
    safety: SafetyPart = SafetyPart()
    """Classifiers of the owner's that say which prompts and images the pool may serve."""
    quality: AuditsPart | None = None
    """Audits of the quality that the pool promises; left out: nothing is audited."""

    @property
    def base_steps(self) -> int:
        """Steps of the model's full schedule."""
        return self.model.num_inference_steps

    @property
    def other_models(self) -> tuple[GroupModelPart, ...]:
        """As groups name them beside the pool's own, in the order of groups."""
        return tuple(group.model for group in self.worker_groups if group.model is not None)

    @cached_property
    def models(self) -> dict[str, ModelPart]:
        """The models that workers hold beside the pool's own, by name."""
        return {part.name: part.beside(self.model) for part in self.other_models}

    @property
    def group_models(self) -> dict[str, str]:
        """The model that the workers of each group hold, at least at first, by its name; empty: the pool's own."""
        return {group.name: group.model.name if group.model is not None else "" for group in self.worker_groups}

    def model_called(self, name: str) -> ModelPart:
        """One of the pool's models; "" = its own.

        Raises:
            KeyError: there is none of this name.
        """
        return self.models[name] if name else self.model

    @property
    def schedules(self) -> dict[str, int]:
        """Steps of the full schedules of the pool's other models."""
        return {name: part.num_inference_steps for name, part in self.models.items()}

    @cached_property
    def guidance_scales(self) -> dict[str, float]:
        """Of each of the pool's models, its own first."""
        return {name: self.model_called(name).guidance_scale for name in ("", *self.models)}

    @cached_property
    def ladder(self) -> Ladder:
        """The levels in order; none given = the paper's, as long as no profile filled them in (`filled_in`)."""
        levels = self.levels or default_levels(self.base_steps)
        full = {Level(0, steps, model=name) for name, steps in self.schedules.items()}
        return build_ladder(self.base_steps, {part.level(self.base_steps) for part in levels} | full, self.schedules)

    def choose_ladder(self, profile: LevelProfile | None, models: Iterable[str] = ()) -> ChosenLadder:
        """The levels that this pool is served at, and why. `models`: others that its workers would hold beside those of
        the spec, by their names in the profile.

        Raises:
            ModelUnmeasured: a model draws otherwise than it was measured.
            ProfileError: the profile has no section for a model.
        """
        if profile is not None:
            self.check_profile(profile, ("", *self.models))
        named = [part.level(self.base_steps) for part in self.levels]
        pinned = [part.level(self.base_steps) for part in self.mix.workers]
        return choose_ladder(self.base_steps, named, profile, pinned, dict.fromkeys((*self.models, *models)))

    def check_profile(self, profile: LevelProfile, models: Iterable[str]) -> None:
        """Whether the profile was measured with these models of the pool as they are in the spec; "" = its own.

        Raises:
            ModelUnmeasured: one draws otherwise than it was measured.
            ProfileError: it has no section for one.
        """
        for name in models:
            check_measured(profile.section(name), self.model_called(name))

    def filled_in(self, chosen: ChosenLadder) -> "PoolSpec":
        """With the levels written down that the profile stands for; all processes read them from there."""
        if chosen.source is not LadderSource.PROFILE and not self.models:
            return self
        levels = tuple(map(LevelPart.of, chosen.ladder.levels))
        return PoolSpec(**{**{name: getattr(self, name) for name in PoolSpec.model_fields}, "levels": levels})

    @property
    def total_workers(self) -> int:
        return sum(group.workers for group in self.worker_groups)

    @cached_property
    def pinned_workers(self) -> dict[tuple[str, Level], int]:
        """Workers by group and level as a Fixed mix asks for; empty with Auto. Of each model, levels of most steps fill
        the groups that hold it in their order.
        """
        wanted = {part.level(self.base_steps): part.workers for part in self.mix.workers}
        rows = sorted(wanted.items(), key=lambda item: (-item[0].cost, item[0]))
        levels = {
            model: iter([level for level, count in rows if level.model == model for _ in range(count)])
            for model in ("", *self.models)
        }
        places = [
            (group.name, level)
            for group in self.worker_groups
            for level in islice(levels[self.group_models[group.name]], group.workers)
        ]
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
