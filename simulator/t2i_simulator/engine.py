"""The simulation, top to bottom: what happens to a request in virtual time, and the slow loop beside it.

arrival -> nearest cached -> policy.serve -> count demand -> admit -> queue -> policy.place -> worker -> image
every few seconds: demand and ready workers -> policy.replan -> levels to named workers

Deterministic: one seed gives one outcome. All decisions are `t2i_policy`'s, taken through the same interface as in the
gateway; what is simulated is the clock, the workers' steps (exactly, see `stepping`) and the cache's content. Left out:
network and embedding time, and latent fetches (instant). A request that outlives its deadline at a worker finishes and
counts as late, where the gateway would cancel it: what a policy did too late stays visible.
"""

from collections.abc import Callable
from math import inf

import numpy as np

from t2i_policy.level import Level
from t2i_policy.planning.assign import assign_levels
from t2i_policy.planning.capacity import group_capacities
from t2i_policy.planning.demand import Demand
from t2i_policy.policies import Course, PoolState, ServingPolicy
from t2i_policy.request.admission import Refused, decide_admission
from t2i_policy.request.decide import Arrival
from t2i_policy.request.options import Limits
from t2i_simulator.cached_rules import remembering_rules
from t2i_simulator.clock import Clock
from t2i_simulator.dispatching import End, SimulatedDispatcher
from t2i_simulator.faults import Faults
from t2i_simulator.outcomes import Fate, Outcomes, Settled
from t2i_simulator.queueing import SimulatedRequest
from t2i_simulator.scenario import Scenario
from t2i_simulator.workers import SimulatedPool

PROGRESS_EVERY = 1000  # arrivals
PATIENCE = 2.0  # SLOs after which a client gives up (as in DiffServe and Proteus); between one and that it is late
Progress = Callable[[int], None]


def silent(arrived: int) -> None:
    """Report no progress; `arrived` counts requests so far."""


class Simulation:
    """One policy over one scenario. Use it once."""

    def __init__(self, scenario: Scenario, policy: ServingPolicy) -> None:
        self._scenario = scenario
        self._policy = policy
        self._clock = Clock()
        self._pool = SimulatedPool(scenario.groups, scenario.gateways)
        self._neighbours = scenario.make_neighbours()
        self._outcomes = Outcomes.begin(list(scenario.arrived_s))
        gateways = scenario.gateways
        self._dispatcher = SimulatedDispatcher(self._clock, self._pool, policy, self._neighbours, self._ended, gateways)
        asked = np.random.default_rng([scenario.seed, 1]).integers(gateways, size=len(scenario.arrived_s))
        self._asked: list[int] = asked.tolist()
        target = scenario.target
        self._rules = remembering_rules(scenario.ladder, scenario.profile, target)
        self._limits = Limits(target.max_loss)
        self._course = Course()
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
        Faults(clock, self._pool, self._dispatcher, self._outcomes).schedule(self._scenario.faults)
        clock.at(0.0, self._replan)
        number, num = 0, len(arrived_s)
        while self._open:
            at_s = arrived_s[number] if number < num else inf
            if clock.next_s <= at_s:
                clock.step()
                continue
            self._arrive(number, at_s)
            number += 1
            if number % PROGRESS_EVERY == 0:
                progress(number)
        progress(num)
        return self._outcomes

    def _arrive(self, number: int, now_s: float) -> None:
        """As the gateway's director: look, decide, count, admit, submit."""
        target = self._scenario.target
        level_draw, near_draw = self._draws[number]
        found = self._neighbours.nearest(number, now_s, near_draw)
        gateway = self._asked[number]
        pool = self._dispatcher.view(now_s, gateway)
        arrival = Arrival(self._limits, found.near, target.slo_s, level_draw)
        decided = self._policy.serve(self._rules, self._course, arrival, pool)
        self._demand = self._demand.counted(decided.prompt_class, now_s)
        outcomes = self._outcomes
        outcomes.reasons[decided.reason] += 1
        if found.near.similarity is not None:
            outcomes.similarity[number] = found.near.similarity
        outcomes.repeated[number] = found.near.another_take
        admission = decide_admission(pool, decided.served, target.slo_s, target.max_queued)
        if isinstance(admission, Refused):
            outcomes.refusals[admission.reason] += 1
            self._ended(End(number, Fate.SHED, now_s))
            return
        self._dispatcher.entries[number] = found.entry
        deadline_s, gives_up_s = now_s + target.slo_s, now_s + PATIENCE * target.slo_s
        level, extra, sent_to = decided.served.level, decided.extra_steps, decided.sent_to
        ticket = SimulatedRequest(deadline_s, number, gives_up_s, level, extra, sent_to, gateway=gateway)
        self._dispatcher.submit(ticket, now_s)

    def _ended(self, end: End) -> None:
        """Every request comes here exactly once."""
        outcomes, number, fate = self._outcomes, end.number, end.fate
        if outcomes.fates[number] is not Fate.OPEN:
            raise AssertionError(f"request {number} ended twice: {outcomes.fates[number].name}, {fate.name}")
        outcomes.fates[number] = fate
        outcomes.finished_s[number] = end.at_s
        outcomes.levels[number] = end.level
        outcomes.steps[number] = end.steps
        outcomes.retries[number] = end.retries
        self._open -= 1
        self._dispatcher.entries.pop(number, None)
        if end.level == self._scenario.ladder.exact:
            self._neighbours.store(number, end.at_s)

    def _replan(self, now_s: float, _: object) -> None:
        """The slow loop's step."""
        scenario, before = self._scenario, self._course.planning.plan
        pool = self._dispatcher.view(now_s)
        groups = group_capacities(pool.workers, scenario.ladder.levels, scenario.target.slo_s)
        self._course = self._policy.replan(self._rules, self._course, PoolState(now_s, self._demand, groups, pool))
        if self._course.planning.plan is not before:
            self._assign(now_s)
        self._clock.at(now_s + scenario.replan_every_s, self._replan)

    def _assign(self, now_s: float) -> None:
        """Levels of the new plan to the workers that are ready."""
        plan = self._course.planning.plan
        if plan is None:
            return
        names: dict[str, list[str]] = {}
        before: dict[str, Level] = {}
        for worker in self._pool.workers:
            if worker.ready:
                names.setdefault(worker.group, []).append(worker.name)
                if worker.level is not None:
                    before[worker.name] = worker.level
        moves = 0
        for name, level in assign_levels(plan, names, before).items():
            worker = self._pool.by_name(name)
            if worker.level != level:
                moves += worker.level is not None
                worker.level = level
                self._pool.changed(worker)
        counts: dict[Level, int] = {}
        for (_, level), count in plan.workers.items():
            counts[level] = counts.get(level, 0) + count
        self._outcomes.settled.append(Settled(now_s, counts, plan.demand_rps, plan.shed_rps, moves))


def simulate(scenario: Scenario, policy: ServingPolicy, progress: Progress = silent) -> Outcomes:
    """Run one policy over one scenario."""
    return Simulation(scenario, policy).run(progress)
