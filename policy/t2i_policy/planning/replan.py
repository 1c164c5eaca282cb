"""Replanning: when a new plan is worth it.

More demand than planned for is answered at once, less only after a dwell time and past a wider margin, so that a rate
that swings around a threshold does not move workers to and fro (hysteresis). A rising trend is planned for ahead.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class ReplanReason(StrEnum):
    """Why a new plan is due, or why not."""

    NO_PLAN = "NoPlan"
    POOL_CHANGED = "PoolChanged"
    DEMAND_ROSE = "DemandRose"
    DEMAND_FELL = "DemandFell"
    MIX_SHIFTED = "MixShifted"
    DWELLING = "Dwelling"  # a change is there, but the last plan is too young
    STEADY = "Steady"


@dataclass(frozen=True, slots=True)
class PlannedFor:
    """What the running plan was made for: rates by prompt class, workers by group, and when (seconds)."""

    rates_rps: Mapping[str, float]
    workers: Mapping[str, int]
    at_s: float


@dataclass(frozen=True, slots=True)
class ReplanRules:
    """Margins as fractions of the planned rate; `mix_shift` is half the L1 distance of the class shares."""

    rise: float = 0.10
    fall: float = 0.25
    mix_shift: float = 0.10
    dwell_s: float = 30.0


@dataclass(frozen=True, slots=True)
class ReplanDecision:
    """Whether to plan anew, and why."""

    due: bool
    reason: ReplanReason


def with_trend(rate_rps: float, earlier_rps: float, elapsed_s: float, ahead_s: float) -> float:
    """The rate expected `ahead_s` from now if it rises on as it did over `elapsed_s`; a fall is not extrapolated."""
    if elapsed_s <= 0:
        return rate_rps
    return rate_rps + max(0.0, rate_rps - earlier_rps) * ahead_s / elapsed_s


def choose_replan(
    planned: PlannedFor | None,
    rates_rps: Mapping[str, float],
    workers: Mapping[str, int],
    now_s: float,
    rules: ReplanRules = ReplanRules(),
) -> ReplanDecision:
    """Compare demand and pool with what the running plan was made for."""
    if planned is None:
        return ReplanDecision(True, ReplanReason.NO_PLAN)
    if dict(workers) != dict(planned.workers):
        return ReplanDecision(True, ReplanReason.POOL_CHANGED)
    now_rps, then_rps = sum(rates_rps.values()), sum(planned.rates_rps.values())
    if now_rps > then_rps * (1 + rules.rise):
        return ReplanDecision(True, ReplanReason.DEMAND_ROSE)
    fell = now_rps < then_rps * (1 - rules.fall)
    if not fell and _distance(rates_rps, planned.rates_rps) <= rules.mix_shift:
        return ReplanDecision(False, ReplanReason.STEADY)
    if now_s - planned.at_s < rules.dwell_s:
        return ReplanDecision(False, ReplanReason.DWELLING)
    return ReplanDecision(True, ReplanReason.DEMAND_FELL if fell else ReplanReason.MIX_SHIFTED)


def _distance(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """Half the L1 distance of two mixes' shares: 0 equal, 1 disjoint. Empty mixes are equal to anything."""
    total, other_total = sum(one.values()), sum(other.values())
    if total <= 0 or other_total <= 0:
        return 0.0
    names = {*one, *other}
    return sum(abs(one.get(name, 0.0) / total - other.get(name, 0.0) / other_total) for name in names) / 2
