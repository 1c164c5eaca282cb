"""Moves: which worker should hold another model, in a pool that lets its workers be loaded anew.

What the pool's workers are worth is what the plan's own program makes of a demand, in images/s x quality. Levels need
no whole workers there: within its model any worker runs any level. A worker that moves drains, loads, and serves nobody
meanwhile:

    cost             = away * (worth(as it is) - worth(without the worker))       images, away = drain + reload
    gain             = worth(after the move) - worth(as it is)                    images/s
    won back after   = away + cost / gain                                         at most HORIZON_S

Both are asked for two demands, that of now and the one followed for minutes, and the worse answer counts. So a burst
moves nobody, unless the move pays without it too; nor does a lull. Of the moves that pay, the one is made that is worth
most within the horizon. One worker moves at a time, and every model keeps one that is ready. A gain below MIN_GAIN of
what a worker serves moves nobody. So a pool that is almost as it should be stays as it is.

The program sees means: its demand gets HEADROOM, as workers are never busy all the time.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from math import exp2, inf
from types import MappingProxyType
from typing import NamedTuple

from t2i_policy.level import Level
from t2i_policy.planning.classes import ClassTable
from t2i_policy.planning.plan import TINY_RPS, GroupCapacity, build_program
from t2i_policy.planning.program import FractionalProgram
from t2i_policy.profile import LevelProfile

HORIZON_S = 300.0
FOLLOWED_S = 60.0  # half-life of the demand that is followed; for as long a pool is watched before its first move
MIN_GAIN = 0.01  # of the demand, by ready worker
HEADROOM = 1.5
TIME_LIMIT_S = 10.0  # of a decision; a tenth of a second is usual in the largest pools

Rates = Mapping[str, float]
NO_RATES: Rates = MappingProxyType({})
NO_RELOADS: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class MovableGroup:
    """A worker group: how many ready workers hold each model, and how many are on their way to one (`reloading`).

    `rates_rps`: images/s of one worker at each level, also at those of models that none holds now. `reload_s`: the
    models that its workers may be given, and the seconds that loading each takes. Empty: they stay as they are, and
    count. `drain_s`: from the last request that a worker is given to the end of it. "" is the pool's own model.
    """

    name: str
    holding: Mapping[str, int]
    rates_rps: Mapping[Level, float]
    reload_s: Mapping[str, float] = field(default_factory=lambda: NO_RELOADS)
    drain_s: Mapping[str, float] = field(default_factory=lambda: NO_RELOADS)
    reloading: int = 0


@dataclass(frozen=True, slots=True)
class FollowedDemand:
    """The demand of the last minutes, by class, in requests/s: the mean of what looks saw since `since_s`, fading with
    FOLLOWED_S. The looks need no fixed period.
    """

    rates_rps: Rates = field(default_factory=lambda: NO_RATES)
    since_s: float = inf
    at_s: float = inf

    def seen(self, rates_rps: Rates, now_s: float) -> "FollowedDemand":
        """After one more look."""
        if self.since_s == inf:
            return FollowedDemand(dict(rates_rps), now_s, now_s)
        faded = exp2(-max(0.0, now_s - self.at_s) / FOLLOWED_S)
        before = faded * (1 - exp2(-(self.at_s - self.since_s) / FOLLOWED_S))  # what all looks before it weigh
        kept = before / (before + 1 - faded) if before + 1 - faded > 0 else 1.0
        names = sorted({*self.rates_rps, *rates_rps})
        rates = {name: kept * self.rates_rps.get(name, 0.0) + (1 - kept) * rates_rps.get(name, 0.0) for name in names}
        return FollowedDemand(
            {name: rate for name, rate in rates.items() if rate > TINY_RPS}, self.since_s, max(now_s, self.at_s)
        )

    def has_settled(self, now_s: float) -> bool:
        """True if it was followed for long enough to move workers by it."""
        return now_s - self.since_s >= FOLLOWED_S


@dataclass(frozen=True, slots=True)
class ModelMove:
    """One worker of the group gives up a model for another. `gain_rps`: images/s x quality that the pool then makes
    more, by the worse demand; `cost_images` are lost while the worker is away, `won_back_s` after the move begins."""

    group: str
    from_model: str
    to_model: str
    away_s: float
    gain_rps: float
    cost_images: float

    @property
    def won_back_s(self) -> float:
        """Seconds from its begin until it has paid; inf if it never does."""
        return self.away_s + self.cost_images / self.gain_rps if self.gain_rps > 0 else inf

    @property
    def net_images(self) -> float:
        """What it is worth within the horizon."""
        return self.gain_rps * max(0.0, HORIZON_S - self.away_s) - self.cost_images

    @property
    def phrase(self) -> str:
        """`a worker of gpu from sdxl to turbo`, for people."""
        return f"a worker of {self.group} from {_named(self.from_model)} to {_named(self.to_model)}"


def drain_times(profile: LevelProfile, models: Iterable[str]) -> dict[str, float]:
    """By model, the seconds that its longest image takes in a full batch.

    Raises:
        ProfileError: a model was not measured.
    """
    measured = {model: profile.section(model) for model in models}
    return {model: one.base_steps * one.step_s[-1] + one.fixed_s for model, one in measured.items()}


class MoveReason(StrEnum):
    """Why a worker moves, or none."""

    PAYS = "Pays"
    RELOADING = "Reloading"
    NONE_TO_SPARE = "NoneToSpare"
    NO_DEMAND = "NoDemand"
    WATCHING = "Watching"
    NO_GAIN = "NoGain"
    PAYS_TOO_LATE = "PaysTooLate"
    UNSTEADY = "DemandUnsteady"
    NOT_SOLVED = "NotSolved"


@dataclass(frozen=True, slots=True)
class MoveDecision:
    """The next move or None, and why, in a word and in a sentence. `followed` is to be given to the next look."""

    move: ModelMove | None
    reason: MoveReason
    sentence: str
    followed: FollowedDemand


@dataclass(frozen=True, slots=True)
class MoveInputs:
    """What a move is decided from: the classes of prompts and their rates now, and the groups."""

    classes: ClassTable
    groups: Sequence[MovableGroup]
    rates_rps: Rates


class _Place(NamedTuple):
    """Workers of a group that hold a model."""

    group: str
    model: str


class _Judged(NamedTuple):
    """A possible move as two demands see it: the worse of both, and the one of now."""

    worse: ModelMove
    now: ModelMove


def decide_move(before: FollowedDemand, inputs: MoveInputs, now_s: float) -> MoveDecision:
    """The next move, if one is due. `before` is what the look before said, empty at the first."""
    followed = before.seen(inputs.rates_rps, now_s)

    def stay(reason: MoveReason, sentence: str) -> MoveDecision:
        return MoveDecision(None, reason, sentence, followed)

    reloading = [group.name for group in inputs.groups if group.reloading]
    if reloading:
        return stay(MoveReason.RELOADING, f"a worker of {reloading[0]} is loading a model: one moves at a time")
    possible = list(_possible(inputs.groups))
    if not possible:
        return stay(MoveReason.NONE_TO_SPARE, "no ready worker can be spared: every model keeps one")
    if min(sum(inputs.rates_rps.values()), sum(followed.rates_rps.values())) <= TINY_RPS:
        return stay(MoveReason.NO_DEMAND, "without demand no model is worth more than another")
    if not followed.has_settled(now_s):
        return stay(MoveReason.WATCHING, f"the demand was followed for less than {FOLLOWED_S:g} s yet")
    judged = _judge(inputs, followed, possible)
    if judged is None:
        return stay(MoveReason.NOT_SOLVED, f"what moves are worth was not found within {TIME_LIMIT_S:g} s")
    num_workers = sum(count for group in inputs.groups for count in group.holding.values())
    least_rps = MIN_GAIN * sum(inputs.rates_rps.values()) / num_workers
    best = max(judged, key=lambda one: (_pays(one.worse, least_rps), one.worse.net_images)).worse
    if _pays(best, least_rps):
        return MoveDecision(best, MoveReason.PAYS, f"{best.phrase}: {_told(best)}", followed)
    hoped = max((one.now for one in judged), key=lambda move: (_pays(move, least_rps), move.gain_rps))
    if _pays(hoped, least_rps):
        told = f"{hoped.phrase} would pay by the demand of now, not by that of the last minutes"
        return stay(MoveReason.UNSTEADY, told)
    if hoped.gain_rps >= least_rps:
        told = f"{hoped.phrase}: {_told(hoped)}, later than the horizon of {HORIZON_S:g} s"
        return stay(MoveReason.PAYS_TOO_LATE, told)
    return stay(MoveReason.NO_GAIN, f"no move gains {100 * MIN_GAIN:g} % of what a worker serves")


def _named(model: str) -> str:
    return model or "the pool's own model"


def _told(move: ModelMove) -> str:
    gained = f"{move.gain_rps:+.3f} images/s x quality"
    return f"{gained}, won back after {move.won_back_s:.0f} s of which the worker is away for {move.away_s:.0f} s"


def _pays(move: ModelMove, least_rps: float) -> bool:
    return move.gain_rps >= least_rps and move.net_images > 0


def _possible(groups: Sequence[MovableGroup]) -> Iterator[ModelMove]:
    """All moves of one worker that leave each model one that is ready; what they are worth is not known yet."""
    held: dict[str, int] = {}
    for group in groups:
        for model, count in group.holding.items():
            held[model] = held.get(model, 0) + count
    for group in groups:
        for model, count in sorted(group.holding.items()):
            if count and held[model] > 1:
                for to_model, reload_s in sorted(group.reload_s.items()):
                    if to_model != model:
                        away_s = group.drain_s.get(model, 0.0) + reload_s
                        yield ModelMove(group.name, model, to_model, away_s, 0.0, 0.0)


def _judge(inputs: MoveInputs, followed: FollowedDemand, possible: Sequence[ModelMove]) -> list[_Judged] | None:
    """What each move is worth; None if that was not found in time."""
    demands = inputs.rates_rps, followed.rates_rps
    names = sorted({name for rates_rps in demands for name in rates_rps})
    pool = _PoolWorth(inputs.groups, inputs.classes, names)
    found: list[list[ModelMove]] = []
    for rates_rps in demands:
        pool.rates_rps = [rates_rps.get(name, 0.0) for name in names]
        base = pool.worth({})
        moves = []
        for move in possible:
            left, taken = _Place(move.group, move.from_model), _Place(move.group, move.to_model)
            away, moved = pool.worth({left: -1}), pool.worth({left: -1, taken: 1})
            if base is None or away is None or moved is None:
                return None
            moves.append(replace(move, gain_rps=moved - base, cost_images=move.away_s * max(0.0, base - away)))
        found.append(moves)
    return [_Judged(min(now, usual, key=lambda move: move.net_images), now) for now, usual in zip(*found, strict=True)]


class _PoolWorth:
    """What the pool makes of `rates_rps`, as it is and with workers that come and go."""

    def __init__(self, groups: Sequence[MovableGroup], classes: ClassTable, names: Sequence[str]) -> None:
        self._held = {
            _Place(group.name, model): group.holding.get(model, 0)
            for group in groups
            for model in sorted({*group.holding, *group.reload_s})
        }
        most = {group.name: sum(group.holding.values()) for group in groups}
        rates = {group.name: group.rates_rps for group in groups}
        capacities = [
            GroupCapacity(
                place.group,
                most[place.group],
                {level: rate for level, rate in rates[place.group].items() if level.model == place.model},
                place.model,
            )
            for place in self._held
        ]
        named = build_program(capacities, classes.with_rates(dict.fromkeys(names, 1.0)))
        self._kept = [1 - one.losses[level] for one, level in named.lanes]
        self._program = FractionalProgram(named.program, TIME_LIMIT_S)
        self._found: dict[tuple[tuple[int, ...], tuple[float, ...]], float | None] = {}
        self.rates_rps: Sequence[float] = [0.0] * len(names)

    def worth(self, change: Mapping[_Place, int]) -> float | None:
        """Images/s x quality; None if that was not found in time."""
        workers = tuple(count + change.get(place, 0) for place, count in self._held.items())
        key = workers, tuple(self.rates_rps)
        if key not in self._found:
            flows_rps = self._program.flows_rps(workers, [HEADROOM * rate for rate in self.rates_rps])
            made_rps = None if flows_rps is None else float(flows_rps @ self._kept) / HEADROOM
            self._found[key] = made_rps
        return self._found[key]
