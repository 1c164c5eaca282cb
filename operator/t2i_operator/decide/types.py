"""What decisions are made from, frozen and nothing but facts; and what they ask to be done, each with its reason."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from t2i_api.pool import PoolSpec
from t2i_operator.manifests.child import Manifest, PoolRef
from t2i_policy.corrections import Corrections
from t2i_policy.frontier import ChosenLadder
from t2i_policy.kept_promise import AuditedQuality
from t2i_policy.level import Level
from t2i_policy.planning.classes import ClassTable, models_below_floor
from t2i_policy.planning.moves import FollowedDemand
from t2i_policy.profile import LevelProfile

FAILING = "Failing"  # why gateways leave out a worker, in their word


class TroubleKind(StrEnum):
    """Why a pod is not ready, as reasons of conditions; the first ones matter most."""

    LOAD_FAILED = "LoadFailed"
    OUT_OF_MEMORY = "OutOfMemory"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    CONFIG_FAILED = "ContainerConfigFailed"
    PODS_REFUSED = "PodsRefused"
    NO_CAPACITY = "NoCapacity"


@dataclass(frozen=True, slots=True)
class Trouble:
    """What keeps a pod from being ready; `message` is the last error in its own words, or the next step."""

    kind: TroubleKind
    message: str


@dataclass(frozen=True, slots=True)
class PodSeen:
    """A pod of the pool. `group` and `number` are None for all but workers. `level` is the value of its label."""

    name: str
    uid: str
    ready: bool
    trouble: Trouble | None = None
    level: str | None = None
    group: str | None = None
    number: int | None = None


@dataclass(frozen=True, slots=True)
class ChildSeen:
    """An object that has a child's name or our label. `owner_uid` None: nobody controls it. `as_applied`: its spec is
    what the API server made of the one that we applied last."""

    manifest: Manifest
    uid: str
    owner_uid: str | None
    deleting: bool = False
    as_applied: bool = False


#: Kind and name.
ChildKey = tuple[str, str]
#: A worker group and a model that workers of it hold, by their names; "" is the pool's own model.
Holding = tuple[str, str]


@dataclass(frozen=True, slots=True)
class MeasuredProfile:
    """What workers of a group measured with a model: seconds of a step by batch size, and of the rest of a request."""

    step_s: tuple[float, ...]
    fixed_s: float

    def scaled(self, factor: float) -> "MeasuredProfile":
        """On a device that takes so many times as long."""
        return MeasuredProfile(tuple(factor * step for step in self.step_s), factor * self.fixed_s)


@dataclass(frozen=True, slots=True)
class ModelSeen:
    """The model that a worker holds, or loads while it is not ready."""

    model: str
    ready: bool


@dataclass(frozen=True, slots=True)
class DemandReport:
    """What one gateway counted: requests/s by class, smoothed; measurements by group and model; why it finds no similar
    prompts, if it should; and why it leaves out workers, by name. `ready`: its pod is. `held`: models by worker, in
    pools of several."""

    gateway: str
    rates_rps: Mapping[str, float]
    measured: Mapping[Holding, MeasuredProfile] = field(default_factory=dict)
    held: Mapping[str, ModelSeen] = field(default_factory=dict)
    embedder_trouble: str = ""
    store_trouble: str = ""
    left_out: Mapping[str, str] = field(default_factory=dict)
    ready: bool = True

    @property
    def failing(self) -> frozenset[str]:
        """Workers that fail what this gateway sends them; other reasons pass in seconds."""
        return frozenset(name for name, reason in self.left_out.items() if reason == FAILING)


@dataclass(frozen=True, slots=True)
class AuditedLevel:
    """Recent audits of one level, of all bands together; losses are fractions of exact."""

    level: Level
    num_audits: int
    promised_loss: float
    measured_loss: float


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What the auditor said. `basis`: the digest of what its scores depend on, as its pod was made for. `trouble`: why
    nothing is judged, in its words."""

    quality: AuditedQuality
    levels: tuple[AuditedLevel, ...]
    corrections: Corrections
    judge: str
    trouble: str
    basis: str


@dataclass(frozen=True, slots=True)
class HeardAudits:
    """The last report, if there was one, and whether the auditor has been silent since for too long."""

    report: AuditReport | None = None
    silent: bool = False

    def of(self, basis: str) -> AuditReport | None:
        """The report, unless it is about a spec or a profile of before."""
        return self.report if self.report is not None and self.report.basis == basis else None


NOTHING_HEARD = HeardAudits()
NOTHING_FOLLOWED = FollowedDemand()


@dataclass(frozen=True, slots=True)
class Observed:
    """The pool object, everything that belongs to it, what gateways and auditor say, and why pods cannot even be
    made."""

    ref: PoolRef
    generation: int
    status: Manifest
    deleting: bool = False
    children: Mapping[ChildKey, ChildSeen] = field(default_factory=dict)
    workers: tuple[PodSeen, ...] = ()
    gateways: tuple[PodSeen, ...] = ()
    auditors: tuple[PodSeen, ...] = ()
    reports: tuple[DemandReport, ...] = ()
    followed: FollowedDemand = NOTHING_FOLLOWED  # of the last minutes, in pools whose workers move
    audits: HeardAudits = NOTHING_HEARD
    starved: tuple[Trouble, ...] = ()  # of workers and gateways
    starved_auditor: tuple[Trouble, ...] = ()
    creating: bool = False  # some pod waits for its containers to be made
    unserved: frozenset[str] = frozenset()  # kinds of children that the cluster does not know

    @property
    def failing(self) -> frozenset[str]:
        """Worker pods that are ready, and yet fail what some gateway sends them."""
        told = frozenset().union(*(report.failing for report in self.reports))
        return frozenset(pod.name for pod in self.workers if pod.ready and pod.name in told)


@dataclass(frozen=True, slots=True)
class DesiredPool:
    """What the spec asks for, parsed and rendered. `spec` holds the levels of `chosen`, whoever named them. `classes`
    are its prompt classes by the profile. `corrections_revision`: of what audits add to that profile; 0 = nothing."""

    spec: PoolSpec
    profile: LevelProfile
    classes: ClassTable
    children: tuple[Manifest, ...]
    chosen: ChosenLadder
    audit_basis: str = ""  # of the auditor that is wanted; empty: none is
    corrections_revision: int = 0

    @property
    def below_floor(self) -> tuple[str, ...]:
        """A sentence for each model that the floor forbids to all requests."""
        return models_below_floor(self.classes, self.spec.ladder, self.profile, self.spec.slo.max_loss)

    def without(self, kinds: frozenset[str]) -> "DesiredPool":
        """The same, but for children of these kinds."""
        return replace(self, children=tuple(one for one in self.children if one["kind"] not in kinds))


@dataclass(frozen=True, slots=True)
class Problem:
    """Why the spec cannot be carried out: a CamelCase reason and a sentence that names the field."""

    reason: str
    message: str


class ApplyReason(StrEnum):
    """Why a child is written."""

    MISSING = "Missing"
    CHANGED = "Changed"  # the spec asks for something else
    DRIFTED = "Drifted"  # somebody else changed it


@dataclass(frozen=True, slots=True)
class Apply:
    """Server-side apply a child; `uid` is what it has now, None if it is not there."""

    manifest: Manifest
    reason: ApplyReason
    uid: str | None


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete exactly this object: a new one of the same name has another UID."""

    kind: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class LabelPod:
    """Give a pod the label of the level it stands at."""

    name: str
    uid: str
    level: str


@dataclass(frozen=True, slots=True)
class WriteStatus:
    """Replace the pool's status."""

    status: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Announce:
    """An event on the pool. `warning`: somebody should look."""

    reason: str
    message: str
    warning: bool = False


Action = Apply | Delete | LabelPod | WriteStatus | Announce


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do, in this order. `settled` = nothing is under way: no need to look again before something happens."""

    actions: tuple[Action, ...]
    settled: bool

    @property
    def children(self) -> tuple[Apply | Delete, ...]:
        """What is written first."""
        return tuple(action for action in self.actions if isinstance(action, Apply | Delete))

    @property
    def rest(self) -> tuple[Action, ...]:
        """Status, labels, events."""
        return tuple(action for action in self.actions if not isinstance(action, Apply | Delete))
