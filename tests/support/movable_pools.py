"""Pools whose workers may be given another model: the reference of 50 steps, or a distilled one that loses 5 %."""

from collections.abc import Mapping
from dataclasses import replace

from small_pools import RULES, SLO_S, STEP_S, N
from t2i_policy.frontier import choose_ladder
from t2i_policy.level import Level
from t2i_policy.model_section import ModelSection
from t2i_policy.planning.capacity import profiled_rates
from t2i_policy.planning.moves import FollowedDemand, MovableGroup, MoveDecision, MoveInputs, decide_move
from t2i_policy.profile import BandLoss
from t2i_policy.request.decide import build_rules

DISTILLED = Level(0, 4, model="distilled")
OWN, OTHER = "", "distilled"
SECTION = ModelSection(
    OTHER, 4, tuple(seconds / 2 for seconds in STEP_S), 0.1, (BandLoss(DISTILLED, -1.0, 1.01, 0.05, 0.0, 100),)
)
PROFILE = replace(RULES.profile, models=(SECTION,))
LADDER = choose_ladder(N, RULES.ladder.levels, PROFILE, models=(OTHER,)).ladder
MOVABLE_RULES = build_rules(LADDER, PROFILE, SLO_S, 0.2)
RATES = profiled_rates(PROFILE, LADDER.levels, SLO_S)
RELOAD_S = {OWN: 30.0, OTHER: 20.0}
DRAIN_S = {OWN: 5.0, OTHER: 1.0}
LATER_S = 1000.0  # the demand has been followed for long


def movable(own: int, other: int, name: str = "gpu", speed: float = 1.0) -> MovableGroup:
    """Workers of a device that is `speed` times as fast, by the model that they hold."""
    rates = {level: speed * rate for level, rate in RATES.items()}
    return MovableGroup(name, {OWN: own, OTHER: other}, rates, RELOAD_S, DRAIN_S)


def look(
    groups: MovableGroup | list[MovableGroup], now_rps: float, usual_rps: float | None = None, name: str = "none"
) -> MoveDecision:
    """One look at a pool, after a long time of `usual_rps` of one class."""
    listed = [groups] if isinstance(groups, MovableGroup) else groups
    usual = FollowedDemand({name: now_rps if usual_rps is None else usual_rps}, 0.0, LATER_S)
    return decide_move(usual, MoveInputs(MOVABLE_RULES.classes, listed, {name: now_rps}), LATER_S)


def moved(group: MovableGroup, decision: MoveDecision) -> MovableGroup:
    """The group after the move, if it is of this group."""
    move = decision.move
    if move is None or move.group != group.name:
        return group
    holding = dict(group.holding)
    holding[move.from_model] -= 1
    holding[move.to_model] = holding.get(move.to_model, 0) + 1
    return replace(group, holding=holding)


def settled(group: MovableGroup, rps: float, most: int = 32) -> Mapping[str, int]:
    """Where moves end at a steady demand.

    Raises:
        AssertionError: they do not end.
    """
    for _ in range(most):
        decision = look(group, rps)
        if decision.move is None:
            return group.holding
        group = moved(group, decision)
    raise AssertionError(f"{most} moves and no end: {group.holding}")
