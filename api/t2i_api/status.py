"""The `status` of a `T2IServingPool`: what the operator alone writes, and gateways and people read.

The plan in it is what gateways serve by. Integers only, per mille for shares; what changes by the second is a metric.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from t2i_api.levels import level_named
from t2i_policy.level import Level

Count = Annotated[int, Field(ge=0)]
Generation = Annotated[int, Field(ge=0, json_schema_extra={"format": "int64"})]
Percent = Annotated[int, Field(ge=0, le=100)]
PerMille = Annotated[int, Field(ge=0, le=1000)]
Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


class _StatusPart(BaseModel):
    """Unknown fields are ignored: a newer operator may say more than this program knows."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True, use_attribute_docstrings=True
    )


class ConditionStatus(_StatusPart):
    """One aspect of the pool, as of `observedGeneration`."""

    type: Annotated[str, Field(max_length=316)]
    """Ready, Available, Planned, Progressing, Degraded, Secured or QualityKept."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    reason: Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$")]
    """Why, in one word for programs."""
    message: Annotated[str, Field(max_length=32768)]
    """Why, in a sentence for people, with the next step."""
    last_transition_time: Time
    """When `status` last changed."""
    observed_generation: Generation = 0
    """The generation of the spec that it was judged for."""


class _LevelPart(_StatusPart):
    """Names a level. A coordinate that it does not have is left out."""

    skipped_steps: Count
    """Steps of the full schedule that a cached latent stands for."""
    num_inference_steps: Count
    """Steps of the schedule."""
    forecast: Count | None = None
    """After the first two steps one in so many is computed, and the others are forecast."""
    guided_steps: Count | None = None
    """Guidance up to this step only."""
    computed_steps: tuple[Count, ...] | None = None
    """Instead of one in so many: the steps that are computed."""
    solver: str | None = None
    """A noise scheduler in place of the model's own."""
    model: str | None = None
    """Another model of the pool, by its name; its steps are meant."""

    @property
    def level(self) -> Level:
        """Raises:
        ValueError: it names none.
        """
        return level_named(self)


class LevelStatus(_LevelPart):
    """One level and the workers that stand at it."""

    workers: Count = 0
    """Workers that the plan places at this level."""
    ready: Count = 0
    """How many of them are ready."""
    load_percent: Percent = 0
    """Share of the traffic that the plan serves at this level."""


class LadderStatus(_StatusPart):
    """Where the pool's levels are from."""

    source: Annotated[str, Field(max_length=64)]
    """Spec: the pool names them. Profile: those that no cheaper level beats. Default: skips of 0 to 50 percent."""
    message: Annotated[str, Field(max_length=32768)]
    """Why each level is used or left out."""


class AuditedLevelStatus(_LevelPart):
    """Audits of one level, of those that `audits.count` counts."""

    count: Count
    """How many."""
    promised_percent: Count
    """Mean quality that was promised, in percent of exact."""
    measured_percent: Count
    """Mean quality that was measured, in percent of exact."""


class AuditsStatus(_StatusPart):
    """Recent audits of images that were served at levels below exact: the last 400, or fewer: those since the last
    change of what is lost that the auditor noticed. It is written about once a minute."""

    count: Count = 0
    """How many: at most 400, and fewer after a change was noticed. 0 before the first report, with 0 percent below."""
    promised_percent: Count = 0
    """Mean quality that was promised for these images, in percent of exact."""
    measured_percent: Count = 0
    """Mean quality of these images as the judge measured it, in percent of exact; above 100 they are better."""
    margin_per_mille: Count = 0
    """Half of the width of the 95 % interval of measured less promised, in thousandths of exact."""
    judge: Annotated[str, Field(max_length=2304)] = ""
    """Who judged."""
    corrections_revision: Generation = 0
    """Rises with every change of the corrections of the profile; 0: none was made."""
    correction_reason: Annotated[str, Field(max_length=32768)] = ""
    """Why the corrections in force replaced those before."""
    levels: tuple[AuditedLevelStatus, ...] = ()
    """The same audits by level: their counts sum to `count`. Levels without audits are left out."""


class PlacementStatus(_LevelPart):
    """Workers of one group at one level."""

    group: str
    """Name of the worker group."""
    workers: Count
    """Workers of the group that the plan counts on at this level: those that were ready when it was made."""
    numbers: tuple[Count, ...] = ()
    """Which workers stand here, ready or not: NUMBER of POOL-GROUP-NUMBER. Every worker of a group is in one list."""


class ShiftStatus(_LevelPart):
    """Where the plan serves one class of prompts: one share at one level."""

    prompt_class: str
    """Prompts that lose alike: lower edge of a band of similarity to the nearest cached prompt, or `none`, `exact`,
    `same-image`, `other-seed`."""
    share_per_mille: PerMille
    """Share of the class that is served at this level; a class that is served at all sums to 1000."""


class ClassStatus(_StatusPart):
    """The traffic of one class of prompts that a plan was made for."""

    prompt_class: str
    """Name of the class, as in `shifts`."""
    milli_rps: Count
    """Requests per 1000 seconds."""


class PlanStatus(_StatusPart):
    """The running plan: workers by level, and where prompts of each class are served."""

    revision: Annotated[int, Field(ge=1, json_schema_extra={"format": "int64"})]
    """Rises with every plan of this pool; a gateway never goes back to a lower one."""
    reason: str
    """Why this plan replaced the one before, e.g. DemandChanged."""
    outcome: str = ""
    """What the plan achieves: AllServed, SomeShed, NoDemand or NoWorkers."""
    method: str = ""
    """How it was found: Exact, TimeLimit or Greedy; Fixed if the spec gave it."""
    made_at: Time | None = None
    """When it was made."""
    demand_milli_rps: Count = 0
    """Requests per 1000 seconds that it was made for."""
    shed_milli_rps: Count = 0
    """Requests per 1000 seconds that no plan could serve within the quality floor: these are refused. With a Fixed mix
    also those that its levels may not serve: these are served at what they want, as far as there is room."""
    quality_percent: Percent = 100
    """Expected quality of what it serves, in percent of exact."""
    classes: tuple[ClassStatus, ...] = ()
    """The traffic that it was made for, by class of prompts."""
    placements: tuple[PlacementStatus, ...] = ()
    """Workers by group and level."""
    shifts: tuple[ShiftStatus, ...] = ()
    """The shift map: P(served level | prompt class)."""
    corrections_revision: Generation | None = None
    """Revision of the corrections by audits that it was made with; absent: by the profile as it was measured."""


class GroupStatus(_StatusPart):
    """One worker group, in pools of several."""

    name: str
    """Name of the worker group."""
    model: str
    """The model that its workers begin with, by its name; `reference` is spec.model."""
    workers: Count
    """Workers that the spec asks for."""
    ready: Count
    """Workers that accept requests."""


class ModelStatus(_StatusPart):
    """One model, in pools of several."""

    name: str
    """Its name in workerGroups; `reference` is spec.model."""
    workers: Count
    """Workers that hold it, or are to."""
    ready: Count
    """Workers that serve it."""
    reload_milliseconds: Count | None = None
    """How long a worker took from the order to hold it until it served it, the last time; absent until one did."""


class MoveStatus(_StatusPart):
    """A worker that gives up a model for another. One moves at a time."""

    worker: str
    """Name of its pod."""
    from_model: str
    """The model that it gives up; `reference` is spec.model."""
    to_model: str
    """The model that it is to hold; `reference` is spec.model."""
    reason: str
    """What that brings, and when it has paid."""
    ordered_at: Time
    """Since when the plan says so."""


class PoolStatus(_StatusPart):
    """What the pool is; written by the operator only."""

    observed_generation: Generation = 0
    """The generation of the spec that this status is about."""
    conditions: tuple[ConditionStatus, ...] = ()
    """Ready, Available, Planned, Progressing, Degraded, Secured, and with spec.quality QualityKept; each says why."""
    workers: Count = 0
    """Workers that the spec asks for, of all groups."""
    ready_workers: Count = 0
    """Workers that accept requests."""
    groups: tuple[GroupStatus, ...] | None = None
    """The worker groups, if there are several; else absent."""
    models: tuple[ModelStatus, ...] | None = None
    """The models that workers hold, spec.model first, if there are several; else absent."""
    move: MoveStatus | None = None
    """The worker that is on its way to another model; absent while none is."""
    mix: str = ""
    """Workers by level in short, e.g. `5x0 2x10 1x0/25`: WORKERS x SKIPPED, with / before a shorter schedule. Levels of
    another model begin with its name: `2xturbo:0/4`."""
    levels: tuple[LevelStatus, ...] = ()
    """Every level of the pool, exact first."""
    ladder: LadderStatus | None = None
    """Where these levels are from, and why."""
    plan: PlanStatus | None = None
    """What gateways serve by; absent until the first plan."""
    quality_percent: Percent | None = None
    """Expected quality of what the plan serves, in percent of exact; absent until the first plan."""
    measured_quality_percent: Count | None = None
    """Mean quality of what was served below exact, as recent audits measured it, in percent of exact; absent without
    spec.quality and until `audits.count` is 30."""
    audits: AuditsStatus | None = None
    """What recent audits found; absent without spec.quality."""
