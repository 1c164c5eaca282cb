"""Moves: the worker that is on its way to another model, whether it is there, and whether the next one follows.

    a move pays (`t2i_policy.planning.moves`)       the plan puts the worker at a level of the other model
    gateways follow the plan                        they order the worker to hold that model
    a gateway says that it is ready with it         it counts again, and what it took is the next guess
    none does within LATE_AFTER times the guess     it goes back, and what it took counts all the same

One worker moves at a time. All that the next look needs is in the status: the model of each worker in the plan, the
move with its begin, and what loading each model took. So a restarted operator goes on as the one before it. Only the
demand of the last minutes is followed anew.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from t2i_api.pool import PoolSpec
from t2i_api.status import MoveStatus
from t2i_operator.clock import Instant
from t2i_operator.decide.demand import measured_by_group, measured_by_profile
from t2i_operator.decide.models import (
    REFERENCE,
    assigned_models,
    move_of,
    moves_on,
    reload_times,
    serving_numbers,
    spoken,
    told_by_gateways,
    told_move,
)
from t2i_operator.decide.types import Announce, DesiredPool, Holding, MeasuredProfile, Observed
from t2i_policy.level import Level
from t2i_policy.planning.assign import Numbered
from t2i_policy.planning.capacity import worker_rate_rps
from t2i_policy.planning.moves import ModelMove, MovableGroup, MoveInputs, decide_move
from t2i_policy.planning.plan import Plan

FIRST_RELOAD_S = 60.0  # from the order until the worker serves the other model, as long as none was measured
LATE_AFTER = 5.0  # times what is expected
LEAST_LATE_S = 600.0  # weights may come from a hub
MOVING, MOVED, MOVE_FAILED = MOVE_EVENTS = ("Moving", "Moved", "MoveFailed")  # reasons of events


@dataclass(frozen=True, slots=True)
class Movement:
    """The model that each worker is to hold from now on, and the move that is under way. `reload_ms`: what loading each
    model took in milliseconds, by its name in status. `changed`: some worker is to hold another one than before."""

    assigned: Mapping[Numbered, str]
    move: MoveStatus | None = None
    reload_ms: Mapping[str, int] = field(default_factory=dict)
    changed: bool = False
    events: tuple[Announce, ...] = ()

    @property
    def mover(self) -> str:
        """The pod that moves; empty: none does."""
        return self.move.worker if self.move is not None else ""

    def serving(self, spec: PoolSpec, seen: Observed) -> dict[Holding, frozenset[int]]:
        """The workers that serve, by group and model."""
        return serving_numbers(seen, spec, self.assigned, self.mover)


NO_MOVEMENT = Movement({})


def standing(desired: DesiredPool, seen: Observed, before: Plan) -> Movement:
    """As the status has it, before anything is decided."""
    spec = desired.spec
    assigned = assigned_models(spec, before.numbers)
    if not moves_on(spec):
        return Movement(assigned)
    return Movement(assigned, _still_meant(move_of(seen), seen, assigned), reload_times(seen))


def _still_meant(move: MoveStatus | None, seen: Observed, assigned: Mapping[Numbered, str]) -> MoveStatus | None:
    """None if the worker or its new model is no longer what the spec asks for."""
    if move is None:
        return None
    wanted = assigned.get(_worker_called(move.worker, seen))
    return move if wanted is not None and spoken(wanted) == move.to_model else None


def _worker_called(name: str, seen: Observed) -> Numbered:
    """A worker by its pod's name, whether the pod is there or not."""
    group, _, number = name.removeprefix(f"{seen.ref.name}-").rpartition("-")
    return Numbered(group, int(number) if number.isdigit() else -1)


def decide_movement(
    desired: DesiredPool, seen: Observed, before: Plan, rates: Mapping[str, float], now: Instant
) -> Movement:
    """What follows from this look. `rates`: the demand, in requests/s by class."""
    found = standing(desired, seen, before)
    if not moves_on(desired.spec):
        return found
    if found.move is not None:
        return _go_on(found, found.move, seen, now)
    if not any(report.ready for report in seen.reports):
        return found  # nobody who could give the order
    groups = tuple(_movable(desired, seen, found))
    decided = decide_move(seen.followed, MoveInputs(desired.classes, groups, rates), now.unix_s)
    if decided.move is None:
        return found
    return _begin(found, decided.move, decided.sentence, desired, seen, now)


def _go_on(found: Movement, move: MoveStatus, seen: Observed, now: Instant) -> Movement:
    """A worker that is there makes room for the next one at the next look."""
    told = told_by_gateways(seen).get(move.worker)
    took_s = now.unix_s - datetime.fromisoformat(move.ordered_at).timestamp()
    pod_ready = any(pod.ready for pod in seen.workers if pod.name == move.worker)
    times = {**found.reload_ms, move.to_model: max(0, round(1000 * took_s))}
    if pod_ready and told is not None and told.ready and spoken(told.model) == move.to_model:
        text = f"{move.worker} serves {move.to_model}, {took_s:.0f} s after it was told to."
        return Movement(found.assigned, None, times, events=(Announce(MOVED, text),))
    if took_s < max(LEAST_LATE_S, LATE_AFTER * _expected_s(found.reload_ms, move.to_model)):
        return found
    text = f"{move.worker} does not serve {move.to_model} after {took_s:.0f} s and goes back to {move.from_model}: "
    event = Announce(MOVE_FAILED, f"{text}read its log (kubectl logs {move.worker}).", warning=True)
    back = {_worker_called(move.worker, seen): "" if move.from_model == REFERENCE else move.from_model}
    return Movement({**found.assigned, **back}, None, times, changed=True, events=(event,))


def _expected_s(reload_ms: Mapping[str, int], name: str) -> float:
    return reload_ms[name] / 1e3 if name in reload_ms else FIRST_RELOAD_S


def _begin(
    found: Movement, move: ModelMove, sentence: str, desired: DesiredPool, seen: Observed, now: Instant
) -> Movement:
    """Of the group's workers the last one goes."""
    number = max(found.serving(desired.spec, seen)[move.group, move.from_model])
    status = MoveStatus(
        worker=f"{seen.ref.name}-{move.group}-{number}",
        from_model=spoken(move.from_model),
        to_model=spoken(move.to_model),
        reason=sentence.partition(": ")[2] or sentence,
        ordered_at=_to_the_millisecond(now),
    )
    assigned = {**found.assigned, Numbered(move.group, number): move.to_model}
    return Movement(assigned, status, found.reload_ms, changed=True, events=(Announce(MOVING, told_move(status)),))


def _to_the_millisecond(now: Instant) -> str:
    """A builtin model is loaded within a second or two."""
    return datetime.fromtimestamp(now.unix_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _movable(desired: DesiredPool, seen: Observed, found: Movement) -> list[MovableGroup]:
    spec, serving = desired.spec, found.serving(desired.spec, seen)
    models = ("", *spec.models)
    reload_s = {model: _expected_s(found.reload_ms, spoken(model)) for model in models}
    return [
        MovableGroup(
            group,
            {model: len(serving.get((group, model), ())) for model in models},
            _rates_of(desired, group, measured_by_group(seen.reports)),
            reload_s,
        )
        for group in spec.group_sizes
    ]


def _rates_of(desired: DesiredPool, group: str, measured: Mapping[Holding, MeasuredProfile]) -> dict[Level, float]:
    """Images/s of a worker of the group at each level, whichever model it would have to hold: as measured there. Where
    nobody holds the model they are the profile's, scaled. The scale is how much slower or faster the group's device is
    with what it holds."""
    spec = desired.spec
    by_profile = {model: measured_by_profile(desired.profile, model) for model in ("", *spec.models)}
    known = {model: measured[group, model] for model in by_profile if (group, model) in measured}
    paces = [one.step_s[0] / by_profile[model].step_s[0] for model, one in known.items() if by_profile[model].step_s]
    scale = sum(paces) / len(paces) if paces else 1.0
    rates = {}
    for level in spec.ladder.levels:
        one = known.get(level.model) or by_profile[level.model].scaled(scale)
        rates[level] = worker_rate_rps(one.step_s, one.fixed_s, level, spec.slo.latency_s)
    return rates
