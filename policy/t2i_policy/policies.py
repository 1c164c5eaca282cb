"""Serving policies: the one interface behind which our policy, the paper's and every baseline stand.

A policy is pure: it sees frozen snapshots and returns decisions. Its slow loop (`replan`) turns demand into the next
`Plan`, by which workers stand. Its fast path (`serve`, `place`) handles one request. Admission, the queue and the
workers are the same for all, so differences come from the policy alone.
"""

from dataclasses import dataclass, field
from typing import Protocol

from t2i_policy.level import Level
from t2i_policy.planning.demand import Demand
from t2i_policy.planning.plan import NO_PLAN, GroupCapacity, Places, Plan
from t2i_policy.planning.replan import PlanInputs, plan_step
from t2i_policy.pool_view import PoolView
from t2i_policy.request.decide import Arrival, Decided, Rules
from t2i_policy.request.placement import Placement, choose_worker


@dataclass(frozen=True, slots=True)
class PoolState:
    """What the slow loop sees: the time (seconds), the whole pool's demand by prompt class, what the ready workers can
    do, the pool."""

    now_s: float
    demand: Demand
    groups: tuple[GroupCapacity, ...]
    pool: PoolView


class ServingPolicy(Protocol):
    """`source` says where the rule comes from and what was simplified."""

    @property
    def name(self) -> str:
        """As in tables and on the command line."""

    @property
    def source(self) -> str:
        """Paper or system, and what is simplified here."""

    def replan(self, rules: Rules, before: Plan, seen: PoolState) -> Plan:
        """The slow loop's step; called every few seconds."""

    def serve(self, rules: Rules, plan: Plan, arrival: Arrival, pool: PoolView) -> Decided:
        """The level of one request."""

    def place(self, level: Level, pool: PoolView, left_s: float, excluded: frozenset[str]) -> Placement | None:
        """Its worker; None = wait."""


@dataclass(frozen=True, slots=True)
class PromptAware:
    """Ours: one price of a step for everybody. The plan says where workers stand, which placement prefers.

    `pinned`: where they stand in a Fixed mix. Its plan binds: requests draw their level from it.
    """

    pinned: Places = field(default_factory=dict)
    name: str = "prompt-aware"
    source: str = "this project"

    def replan(self, rules: Rules, before: Plan, seen: PoolState) -> Plan:
        rates_rps = seen.demand.rates_rps(seen.now_s)
        inputs = PlanInputs(rules.classes, seen.groups, rates_rps, self.pinned)
        return plan_step(before, inputs, seen.now_s)

    def serve(self, rules: Rules, plan: Plan, arrival: Arrival, pool: PoolView) -> Decided:
        return rules.decide(arrival, pool, plan if plan.binds else NO_PLAN)

    def place(self, level: Level, pool: PoolView, left_s: float, excluded: frozenset[str]) -> Placement | None:
        able = pool.of_model(level.model)
        return choose_worker(able.ready, level, left_s, able.occupancy, excluded)
