"""A scenario: everything one simulation needs, read and checked before time starts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from t2i_api.pool import PoolSpec
from t2i_policy.level import Ladder
from t2i_policy.profile import LevelProfile
from t2i_policy.request.options import HARMLESS_LOSS
from t2i_simulator.faults import Fault
from t2i_simulator.neighbours import Neighbours
from t2i_simulator.workers import Group

REPLAN_EVERY_S = 5.0


@dataclass(frozen=True, slots=True)
class ServiceTarget:
    """What the pool promises and admits: SLO of one image, floor on expected quality, requests that may wait."""

    slo_s: float
    max_loss: float
    max_queued: int
    harmless_loss: float = HARMLESS_LOSS

    @classmethod
    def of(cls, spec: PoolSpec) -> "ServiceTarget":
        """A pool document's."""
        slo, queued = spec.slo, spec.gateway.max_queued_requests
        return cls(slo.latency_s, slo.max_loss, queued, slo.harmless_loss)


@dataclass(frozen=True, slots=True)
class Scenario:
    """`arrived_s` ascend from 0; `make_neighbours` gives each policy a fresh, empty cache; `profile` is what decisions
    believe of losses (each group's own step times are the truth and are believed). Every request's deadline is the SLO.
    Clients draw one of `gateways`; each has a queue of its own, and they share workers, demand and plan.
    """

    ladder: Ladder
    profile: LevelProfile
    groups: tuple[Group, ...]
    target: ServiceTarget
    arrived_s: Sequence[float]
    make_neighbours: Callable[[], Neighbours]
    seed: int = 0
    replan_every_s: float = REPLAN_EVERY_S
    faults: tuple[Fault, ...] = field(default=())
    gateways: int = 1
