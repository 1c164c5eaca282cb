"""The simulation: what happens to a request in virtual time, and the planning loop beside it.

arrival -> nearest cached prompt -> policy.serve -> count demand -> admit -> queue -> policy.place -> worker -> image
every few seconds: demand and ready workers -> policy.replan -> levels to named workers

It is deterministic: one seed gives one outcome. `t2i_policy` makes all decisions, through the same interface as in the
gateway. Simulated are the clock, the workers' steps (exactly, in `stepping`) and the content of the cache.
Network, embedding and latent fetches take no time.
The gateway would cancel a request that passes its deadline at a worker. Here it still finishes and counts as late. So
it stays visible what a policy did too late.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import inf

import numpy as np

from t2i_policy.image_size import counted_steps
from t2i_policy.level import Level
from t2i_policy.planning.assign import assign_ready
from t2i_policy.planning.capacity import group_capacities
from t2i_policy.planning.demand import Demand
from t2i_policy.planning.plan import NO_PLAN
from t2i_policy.policies import PoolState, ServingPolicy
from t2i_policy.pool_view import PoolView
from t2i_policy.queue import FairQueue
from t2i_policy.request.admission import Admitted, Refused, decide_admission
from t2i_policy.request.decide import Arrival, Decided
from t2i_policy.request.elsewhere import decide_elsewhere, decide_with_room
from t2i_policy.request.options import Limits
from t2i_simulator.by_model import Dispatchers
from t2i_simulator.cached_rules import build_cached_rules
from t2i_simulator.clock import Clock, Progress, silent
from t2i_simulator.dispatching import End, SimulatedDispatcher, SimulatedRequest
from t2i_simulator.outcomes import Fate, Outcomes, PlanRecord
from t2i_simulator.reloads import Reloads
from t2i_simulator.rivals.common import RivalDecided, in_line
from t2i_simulator.scenario import Scenario
from t2i_simulator.workers import SimulatedPool

PROGRESS_EVERY = 1000  # arrivals
PATIENCE = 2.0  # a client gives up after this many SLOs, as in DiffServe and Proteus; an image after one SLO is late


class Simulation:
    """Runs one policy over one scenario, once."""

    def __init__(self, scenario: Scenario, policy: ServingPolicy) -> None:
        self._scenario = scenario
        self._policy = policy
        self._clock = Clock()
        self._neighbours = scenario.make_neighbours()
        self._outcomes = Outcomes.begin(list(scenario.arrived_s))
        weights = {tenant.name: tenant.weight for tenant in scenario.tenants}

        def dispatcher_of(pool: SimulatedPool) -> SimulatedDispatcher:
            queues = [FairQueue[SimulatedRequest](weights) for _ in range(scenario.gateways)]
            return SimulatedDispatcher(
                self._clock, pool, policy, self._neighbours, self._ended, queues, scenario.hears_every_s
            )

        movable = bool(scenario.reload_s)
        self._dispatchers = Dispatchers.build(scenario.groups, scenario.gateways, dispatcher_of, movable)
        if len(self._dispatchers.by_model) > 1:
            for model in self._dispatchers.by_model.values():
                model.dispatcher.elsewhere = self._elsewhere
        # All draws are made before the run, so that every policy meets the same luck.
        self._asked = scenario.draw_gateways()
        self._tenants = scenario.tenant_names()
        self._costs = scenario.draw_costs()
        target = scenario.target
        self._rules = build_cached_rules(scenario.ladder, scenario.profile, target)
        self._reloads = Reloads(scenario, self._rules, self._clock, self._dispatchers)
        self._limits = Limits(target.max_loss)
        self._plan = NO_PLAN
        self._demand = Demand()
        self._open = len(scenario.arrived_s)
        draws = np.random.default_rng([scenario.seed, 0]).random((self._open, 2))
        self._draws: list[tuple[float, float]] = list(map(tuple, draws.tolist()))

    def run(self, progress: Progress = silent) -> Outcomes:
        """From the first arrival until every request has ended.

        Raises:
            KeyError: a fault names no worker of the pool.
        """
        clock, arrived_s = self._clock, self._outcomes.arrived_s
        self._dispatchers.schedule(self._scenario.faults, clock, self._outcomes)
        clock.at(0.0, self._replan)
        number, num = 0, len(arrived_s)
        while self._open:
            at_s = arrived_s[number] if number < num else inf
            if clock.next_s <= at_s:  # an event at the instant of an arrival comes first
                clock.step()
                continue
            self._arrive(number, at_s)
            number += 1
            if number % PROGRESS_EVERY == 0:
                progress(number)
        progress(num)
        return self._outcomes

    def _arrive(self, number: int, now_s: float) -> None:
        """The same order of steps as the gateway's director."""
        scenario, gateway = self._scenario, self._asked[number]
        target, tenant = scenario.target, self._tenants[number]
        level_draw, near_draw = self._draws[number]
        # 1. Find a similar prompt in the cache.
        found = self._neighbours.nearest(number, now_s, near_draw)
        pool = self._dispatchers.view(now_s, gateway, tenant)
        # 2. Decide the level.
        cost = self._costs[number]
        arrival = Arrival(self._limits, found.near, target.slo_s, level_draw, cost)
        admit = partial(self._admission, pool, number)
        decided, admission = decide_with_room(self._serve(arrival), admit, pool)
        # 3. Count the demand, also of requests that are refused.
        self._demand = self._demand.counted(decided.prompt_class, now_s, cost)
        outcomes = self._outcomes
        outcomes.reasons[decided.reason] += 1
        if found.near.similarity is not None:
            outcomes.similarity[number] = found.near.similarity
        outcomes.repeated[number] = found.near.another_take
        # 4. Accept or refuse.
        if isinstance(admission, Refused):
            outcomes.refusals[admission.reason] += 1
            self._ended(End(number, Fate.SHED, now_s))
            return
        # 5. Wait for a worker.
        served, extra_steps, sent_to, then, bears, keeps = decided.served.level, 0, None, None, 0.0, False
        if isinstance(decided, RivalDecided):
            extra_steps, sent_to, then, bears = decided.extra_steps, decided.sent_to, decided.then, decided.bears
            keeps = decided.keeps
        self._dispatchers.of_model(served.model).entries[number] = found.entry
        if then is not None:
            self._dispatchers.of_model(then.model).entries[number] = found.entry
        request = SimulatedRequest(
            tenant=tenant,
            deadline_s=now_s + target.slo_s,
            number=number,
            steps=counted_steps(served.cost + extra_steps, cost),
            line=sent_to,
            gives_up_s=now_s + PATIENCE * target.slo_s,
            level=served,
            sent_to=sent_to,
            gateway=gateway,
            step_cost=cost,
            extra_steps=extra_steps,
            then=then,
            bears=bears,
            keeps=keeps,
            near=found.near,
        )
        self._dispatchers.submit(request, now_s)

    def _serve(self, arrival: Arrival) -> Callable[[PoolView], Decided]:
        return lambda pool: self._policy.serve(self._rules, self._plan, arrival, pool)

    def _admission(self, pool: PoolView, number: int, decided: Decided) -> Admitted | Refused:
        """Of a request that arrives."""
        target, gateway = self._scenario.target, self._asked[number]
        pool = pool.for_cost(self._costs[number])
        if isinstance(decided, RivalDecided) and decided.sent_to is not None:
            line = self._dispatchers.of_model(decided.sent_to.model)
            decided = in_line(decided, pool, line.steps_for(decided.sent_to, gateway))
        model, tenant = decided.served.level.model, self._tenants[number]
        room = self._dispatchers.queue_room(model, gateway, tenant, target.max_queued)
        return decide_admission(pool, decided.served, target.slo_s, room)

    def _ended(self, end: End) -> None:
        """Record the end of a request. Each request ends exactly once; an image that is drawn again is no end."""
        if end.request is not None and self._drawn_again(end.request, end):
            return
        if end.request is not None:
            end = _with_kept(end.request, end)
        outcomes, number, fate = self._outcomes, end.number, end.fate
        if outcomes.fates[number] is not Fate.OPEN:
            raise AssertionError(f"request {number} ended twice: {outcomes.fates[number].name}, {fate.name}")
        outcomes.fates[number] = fate
        outcomes.finished_s[number] = end.at_s
        outcomes.levels[number] = end.level
        outcomes.steps[number] += end.steps
        outcomes.retries[number] = end.retries
        self._open -= 1
        for model in self._dispatchers.by_model.values():
            model.dispatcher.entries.pop(number, None)
        if end.level == self._scenario.ladder.exact:  # only exact runs are stored, as live
            self._neighbours.store(number, end.at_s)

    def _drawn_again(self, first: SimulatedRequest, end: End) -> bool:
        """The second run of a cascade, if the discriminator asks for it and it can be in time; else the image stays."""
        then, judge = first.then, self._scenario.discriminator
        if (
            end.fate is not Fate.SERVED
            or then is None
            or judge is None
            or judge(end.number, first.level) <= first.bears
        ):
            return False
        pool = self._dispatchers.view(end.at_s, first.gateway).of_model(then.model).for_cost(first.step_cost)
        if end.at_s + pool.queue_wait_s() + pool.best_finish_s(then.cost) > first.deadline_s:
            return False
        self._outcomes.steps[end.number] += end.steps
        steps = counted_steps(then.cost, first.step_cost)
        kept = first.level if first.keeps else None
        second = replace(first, level=then, then=None, kept=kept, steps=steps, waits=False, tries=0, choosy=False)
        self._dispatchers.submit(second, end.at_s)
        return True

    def _elsewhere(self, stranded: SimulatedRequest, now_s: float, in_time: bool) -> bool:
        """Decide it anew for the other models that have workers; `in_time`: only if one makes its deadline."""
        left_s, cost = stranded.deadline_s - now_s, stranded.step_cost
        pool = self._dispatchers.view(now_s, stranded.gateway)
        arrival = Arrival(self._limits, stranded.near, left_s, self._draws[stranded.number][0], cost)
        before = stranded.level.model
        decided = decide_elsewhere(self._serve(arrival), pool, before)
        if decided is None or left_s <= 0 or (in_time and decided.served.estimated_s > left_s):
            return False
        level = decided.served.level
        entry = self._dispatchers.of_model(before).entries.get(stranded.number)
        if entry is not None:
            self._dispatchers.of_model(level.model).entries[stranded.number] = entry
        steps = counted_steps(level.cost, cost)
        self._dispatchers.submit(
            replace(stranded, level=level, sent_to=None, line=None, then=None, steps=steps, waits=False, choosy=False),
            now_s,
        )
        return True

    def _replan(self, now_s: float, _: object) -> None:
        """One step of the planning loop."""
        scenario, before = self._scenario, self._plan
        pool = self._dispatchers.view(now_s)
        groups = group_capacities(pool.workers, scenario.ladder.levels, scenario.target.slo_s)
        self._plan = self._policy.replan(self._rules, self._plan, PoolState(now_s, self._demand, groups, pool))
        if self._plan is not before:
            self._assign(now_s, pool)
        self._reloads.look(now_s, self._demand.rates_rps(now_s), self._outcomes)
        self._clock.at(now_s + scenario.replan_every_s, self._replan)

    def _assign(self, now_s: float, pool: PoolView) -> None:
        """Give the levels of the new plan to the ready workers."""
        plan, moves = self._plan, 0
        for name, level in assign_ready(plan, pool.workers).items():
            held_by, worker = self._dispatchers.holder(name)
            if worker.level != level:
                moves += worker.level is not None  # a first level is no move
                worker.level = level
                held_by.changed(worker)
        counts: dict[Level, int] = {}
        for (_, level), count in plan.workers.items():
            counts[level] = counts.get(level, 0) + count
        self._outcomes.plans.append(PlanRecord(now_s, counts, plan.demand_rps, plan.shed_rps, moves))


def _with_kept(request: SimulatedRequest, end: End) -> End:
    """At its deadline the image that is there goes out, if the better one is not done."""
    if request.kept is None or (end.fate is Fate.SERVED and end.at_s <= request.deadline_s):
        return end
    return replace(end, fate=Fate.SERVED, at_s=min(end.at_s, request.deadline_s), level=request.kept)


def simulate(scenario: Scenario, policy: ServingPolicy, progress: Progress = silent) -> Outcomes:
    return Simulation(scenario, policy).run(progress)
