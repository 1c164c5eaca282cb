"""The plan that requests are decided by: planned here without an operator, or followed as the operator publishes it.

One writer of the plan: requests read it, this loop replaces it. The program is solved in a thread, so that no request
waits for a plan.
"""

import asyncio
import logging
from collections.abc import Callable

from t2i_gateway.by_model import ModelDispatchers
from t2i_gateway.metrics import GatewayMetrics
from t2i_gateway.workers.pool import WorkerPool
from t2i_policy.planning.assign import assign_ready
from t2i_policy.planning.capacity import group_capacities
from t2i_policy.planning.demand import Demand
from t2i_policy.planning.plan import NO_PLAN, Plan
from t2i_policy.policies import PoolState, ServingPolicy
from t2i_policy.request.decide import Rules

log = logging.getLogger(__name__)
PLAN_EVERY_S = 2.0


class PlanningLoop:
    """`plan` is what requests are decided by; `demand` counts them by prompt class. `clock`: seconds, never back."""

    def __init__(
        self,
        policy: ServingPolicy,
        rules: Rules,
        dispatchers: ModelDispatchers,
        metrics: GatewayMetrics,
        *,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.policy = policy
        self.rules = rules
        self.plan = NO_PLAN
        self.demand = Demand()
        self._dispatchers = dispatchers
        self._metrics = metrics
        self._clock = clock or asyncio.get_running_loop().time

    def count(self, prompt_class: str, step_cost: float = 1.0) -> None:
        """Count one more request of this class: as so many of the default size."""
        self.demand = self.demand.counted(prompt_class, self._clock(), step_cost)

    @property
    def rate_rps(self) -> float:
        """Requests that come to this gateway, a second."""
        return self.demand.rate_rps(self._clock())

    def _pool_demand(self) -> Demand:
        """This gateway's demand, scaled up by what the others say comes to them."""
        return self.demand.times(self._dispatchers.demand_factor(self.rate_rps))

    async def run(self, workers: WorkerPool) -> None:
        """Plan until cancelled."""
        while True:
            await asyncio.sleep(PLAN_EVERY_S)
            await self.step(workers)

    def follow(self, plan: Plan, pool: str, workers: WorkerPool) -> None:
        """Serve by this plan from now on. Every request sees the old or the new one as a whole."""
        self._show(plan)
        self.plan = plan
        # By name, as their StatefulSet names them.
        numbered = {place: [f"{pool}-{place[0]}-{number}" for number in which] for place, which in plan.numbers.items()}
        workers.assign({name: level for (_, level), names in numbered.items() for name in names})

    def decide_by(self, rules: Rules) -> None:
        """Decide and plan by these rules from now on. Every request sees the old or the new ones as a whole."""
        self.rules = rules

    async def step(self, workers: WorkerPool) -> None:
        """One look at demand and pool; a new plan if one is due."""
        view = self._dispatchers.view()
        groups = group_capacities(view.ready, self.rules.ladder.levels, self.rules.slo_s)
        if not groups:
            return  # keep the last good plan; there is nothing to plan for
        now_s, before = self._clock(), self.plan
        seen = PoolState(now_s, self._pool_demand(), groups, view)
        self.plan = await asyncio.to_thread(self.policy.replan, self.rules, before, seen)
        if self.plan is not before:
            self._show(self.plan)
            workers.assign(assign_ready(self.plan, workers.views))

    def _show(self, plan: Plan) -> None:
        """To metrics and the log."""
        self._metrics.plan_revision.set(plan.revision)
        self._metrics.replans.labels(plan.reason).inc()
        at = ", ".join(
            f"{group} {count} x {self.rules.label(level)}" for (group, level), count in sorted(plan.workers.items())
        )
        log.info(
            "plan %d (%s): %.2f/s on %s; %.1f%% loss, %.2f/s shed",
            *(plan.revision, plan.reason, plan.demand_rps, at, 100 * plan.mean_loss, plan.shed_rps),
        )
