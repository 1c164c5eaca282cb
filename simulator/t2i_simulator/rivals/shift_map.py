"""The shift map, corrected by the backlog: our own policy until one price replaced it.

Two forces. The plan's shift map (arXiv 2502.06798's K -> K') draws the level for a prompt's class. As the backlog eats
the slack, a step gets a price. The level that is best at this price is served, no dearer than the drawn one. Below IDLE
the plan is for a demand that is not here, and the wanted level is served.

It was left because the map forecasts one number, the price, for a demand that is seconds old. Taking the dearer of
forecast and backlog bends where nobody waits (docs/decisions/2026-11-29-one-price.md).
"""

from dataclasses import dataclass, replace

from t2i_policy.level import Level
from t2i_policy.planning.plan import Plan
from t2i_policy.policies import PoolState
from t2i_policy.pool_view import PoolView
from t2i_policy.request.decide import Arrival, Decided, Rules
from t2i_policy.request.options import Option
from t2i_policy.request.price import backlog_price
from t2i_policy.request.served import LoadState, choose_served_level
from t2i_simulator.rivals.common import PlacedAsOurs
from t2i_simulator.rivals.mean_losses import planned_anew

IDLE_PRESSURE = 0.1  # below: what is wanted is served, whatever the plan says
LOW_PRESSURE = 0.3  # below: a step has no price
HIGH_PRESSURE = 0.9  # above: quality may be spent to the floor
HEADROOM = 1.05


@dataclass(frozen=True, slots=True)
class ShiftMapAndBacklog(PlacedAsOurs):
    """The plan's draw, corrected by the price that the backlog sets."""

    name: str = "ours-shift-map"
    source: str = "ours until there was one price: the plan's shift map, corrected by the backlog"

    def replan(self, rules: Rules, before: Plan, seen: PoolState) -> Plan:
        """Our program, more often than we plan now."""
        return planned_anew(rules, before, seen, HEADROOM)

    def serve(self, rules: Rules, plan: Plan, arrival: Arrival, pool: PoolView) -> Decided:
        """The draw, or what costs no more where the request cannot have it; cheaper as the backlog asks."""
        decided = rules.decide(arrival, pool)
        start = decided.wanted.level
        planned = plan.draw(decided.prompt_class, arrival.draw)
        if planned is not None and decided.pressed >= IDLE_PRESSURE:
            start = _nearest(planned, decided.options)
        most = max(option.level.num_inference_steps for option in decided.options)
        price = backlog_price(decided.pressed, arrival.limits.max_loss, most, low=LOW_PRESSURE, high=HIGH_PRESSURE)
        load = LoadState(arrival.left_s, price, start)
        return replace(decided, served=choose_served_level(decided.wanted, decided.options, pool, load))


def _nearest(planned: Level, options: tuple[Option, ...]) -> Level:
    """The draw; else what loses least among those that cost no more (a hole in the cache, a tighter floor)."""
    cheaper = [option for option in options if option.level.cost <= planned.cost]
    exact = next((option for option in options if option.level == planned), None)
    best = exact or min(cheaper, key=lambda one: (one.expected_loss, one.level.cost), default=options[0])
    return best.level
