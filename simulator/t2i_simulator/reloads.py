"""Workers that are loaded anew with another model, in virtual time, as `t2i_policy.planning.moves` decides.

    a worker takes no more requests -> ends those that it holds -> is away for the reload -> serves the other model

A worker that may move is in the pool of each model; it is ready in one of them at most.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from t2i_policy.planning.capacity import profiled_rates
from t2i_policy.planning.moves import (
    FollowedDemand,
    ModelMove,
    MovableGroup,
    MoveInputs,
    decide_move,
    drain_times,
)
from t2i_policy.request.decide import Rules
from t2i_simulator.by_model import Dispatchers
from t2i_simulator.clock import Clock
from t2i_simulator.outcomes import MadeMove, Outcomes
from t2i_simulator.scenario import Scenario
from t2i_simulator.workers import SimulatedWorker

DRAINED_EVERY_S = 0.25  # how often it is looked whether a worker holds a request still


@dataclass(slots=True, eq=False)
class _Reload:
    """A worker on its way from one model to another."""

    name: str
    move: ModelMove


class Reloads:
    """Moves one worker at a time. Without `scenario.reload_s` nothing ever moves."""

    def __init__(self, scenario: Scenario, rules: Rules, clock: Clock, dispatchers: Dispatchers) -> None:
        self._rules = rules
        self._clock = clock
        self._dispatchers = dispatchers
        self._reload_s = scenario.reload_s
        self._followed = FollowedDemand()
        self._under_way: _Reload | None = None
        self._sizes = {group.name: group.num_workers for group in scenario.groups}
        levels, slo_s = rules.ladder.levels, rules.slo_s
        self._rates = {group.name: profiled_rates(group.profile, levels, slo_s) for group in scenario.groups}
        self._drain_s = {group.name: drain_times(group.profile, self._reload_s) for group in scenario.groups}

    def look(self, now_s: float, rates_rps: Mapping[str, float], outcomes: Outcomes) -> None:
        """Begin the next move, if one is due at this demand."""
        if not self._reload_s:
            return
        inputs = MoveInputs(self._rules.classes, list(self._groups()), rates_rps)
        decision = decide_move(self._followed, inputs, now_s)
        self._followed = decision.followed
        if decision.move is not None:
            self._begin(now_s, decision.move, outcomes)

    def _groups(self) -> Iterator[MovableGroup]:
        loading = None if self._under_way is None else self._under_way.move.group
        for name in self._sizes:
            ready = {model: len(self._ready(name, model)) for model in self._reload_s}
            yield MovableGroup(
                name, ready, self._rates[name], self._reload_s, self._drain_s[name], reloading=int(name == loading)
            )

    def _ready(self, group: str, model: str) -> list[SimulatedWorker]:
        workers = self._dispatchers.by_model[model].pool.workers
        return [worker for worker in workers if worker.group == group and worker.ready]

    def _begin(self, now_s: float, move: ModelMove, outcomes: Outcomes) -> None:
        """The one that holds fewest requests goes."""
        worker = min(self._ready(move.group, move.from_model), key=lambda one: (one.loop.in_flight, one.index))
        self._under_way = _Reload(worker.name, move)
        outcomes.made_moves.append(MadeMove(now_s, move.group, move.from_model, move.to_model))
        self._set_holds(now_s, move.from_model, worker.name, False)
        self._look_drained(now_s, self._under_way)

    def _look_drained(self, now_s: float, reload: _Reload) -> None:
        if self._dispatchers.by_model[reload.move.from_model].dispatcher.is_held_by(reload.name):
            self._clock.at(now_s + DRAINED_EVERY_S, self._look_drained, reload)
        else:
            self._clock.at(now_s + self._reload_s[reload.move.to_model], self._end, reload)

    def _end(self, now_s: float, reload: _Reload) -> None:
        self._under_way = None
        self._set_holds(now_s, reload.move.to_model, reload.name, True)

    def _set_holds(self, now_s: float, model: str, name: str, holds: bool) -> None:
        place = self._dispatchers.by_model[model]
        worker = place.pool.by_name(name)
        worker.holds, worker.level = holds, None
        place.pool.changed(worker)
        place.dispatcher.ready_changed(now_s)
