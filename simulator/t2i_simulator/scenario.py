"""A scenario is everything that one simulation needs, read and checked before it starts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from t2i_api.pool import PoolSpec
from t2i_policy.level import Ladder, Level
from t2i_policy.profile import LevelProfile
from t2i_policy.request.options import HARMLESS_LOSS
from t2i_simulator.faults import Fault
from t2i_simulator.neighbours import Neighbours
from t2i_simulator.workers import Group

REPLAN_EVERY_S = 5.0


@dataclass(frozen=True, slots=True)
class ServiceTarget:
    """What the pool promises and admits: latency of an image, most expected loss, most waiting requests."""

    slo_s: float
    max_loss: float
    max_queued: int
    harmless_loss: float = HARMLESS_LOSS

    @classmethod
    def of(cls, spec: PoolSpec) -> "ServiceTarget":
        slo, queued = spec.slo, spec.gateway.max_queued_requests
        return cls(slo.latency_s, slo.max_loss, queued, slo.harmless_loss)


@dataclass(frozen=True, slots=True)
class SimulatedTenant:
    """Who asks, and its weight in every queue. `gateway_shares`: of its requests, where they are not the scenario's."""

    name: str = "anybody"
    weight: float = 1.0
    gateway_shares: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class OtherSize:
    """The share of requests that ask for images of another size, and what its steps cost (see `image_size`)."""

    share: float
    step_cost: float


@dataclass(frozen=True, slots=True)
class Scenario:
    """`arrived_s` rises from 0, and every request's deadline is the SLO.

    `make_neighbours` makes a new, empty cache for each policy. Decisions believe the losses of `profile`; each group's
    own step times are both true and believed. Each request goes to a random one of `gateways`, evenly or by
    `gateway_shares`. Every gateway has its own queue; all share workers, demand and plan. `tenant_of` holds the place
    in `tenants` of who sends each request; empty: the first sends all.
    Each gateway hears what waits in the others each `hears_every_s`, one number for each. It is infinite for one that
    began anew and heard of nobody yet. As one of an older version, that one does not tell whose requests wait there.
    `reload_s`: seconds that a worker takes to be loaded with each model that the groups name; then workers move between
    models as the demand asks for (`reloads`). Empty: none moves.
    `discriminator`: what the image of a request (its number) at a level lost, as a cascade sees it; None: no cascade.
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
    gateway_shares: tuple[float, ...] = ()
    hears_every_s: tuple[float, ...] = ()
    tenants: tuple[SimulatedTenant, ...] = (SimulatedTenant(),)
    tenant_of: Sequence[int] = ()
    other_sizes: tuple[OtherSize, ...] = ()
    discriminator: Callable[[int, Level], float] | None = None
    reload_s: Mapping[str, float] = field(default_factory=dict)

    def tenant_names(self) -> list[str]:
        """Who sends each request."""
        return [self.tenants[place].name for place in self.tenant_of or [0] * len(self.arrived_s)]

    def draw_costs(self) -> list[float]:
        """What a step of each request costs; equal for all policies. 1.0 is the default size's."""
        num = len(self.arrived_s)
        if not self.other_sizes:
            return [1.0] * num
        costs = [1.0, *(one.step_cost for one in self.other_sizes)]
        shares = [one.share for one in self.other_sizes]
        rng = np.random.default_rng([self.seed, 2])
        drawn: list[float] = rng.choice(costs, num, p=[1 - sum(shares), *shares]).tolist()
        return drawn

    def draw_gateways(self) -> list[int]:
        """The gateway of each request; equal for all policies."""
        rng, num = np.random.default_rng([self.seed, 1]), len(self.arrived_s)
        asked, tenant_of = np.zeros(num, np.int64), np.asarray(self.tenant_of or np.zeros(num))
        for place, tenant in enumerate(self.tenants):
            own = tenant_of == place
            shares = tenant.gateway_shares or self.gateway_shares or None
            asked[own] = rng.choice(self.gateways, int(own.sum()), p=shares)
        found: list[int] = asked.tolist()
        return found
