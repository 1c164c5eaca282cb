"""One request's decision: the policy's functions in their order, over one snapshot of cache and pool.

options -> wanted level -> prompt class -> a Fixed mix's draw -> price of a step -> served level

Where workers hold several models, price and served level are found for each, and one of these offers is taken.

Gateway and simulator both call `Rules.decide` and nothing else, so what is simulated is what is served.
"""

from dataclasses import dataclass
from typing import NamedTuple

from t2i_policy.corrections import Corrections
from t2i_policy.level import Ladder, Level
from t2i_policy.planning.classes import ClassTable, build_classes
from t2i_policy.planning.plan import NO_PLAN, Plan
from t2i_policy.pool_view import PoolView
from t2i_policy.profile import LevelProfile
from t2i_policy.quick_dataclass import quick_dataclass
from t2i_policy.request.models import (
    RELIEVED,
    Offer,
    Resource,
    cheapest_wanted,
    choose_offer,
    options_by_model,
    relief,
)
from t2i_policy.request.options import (
    HARMLESS_LOSS,
    Limits,
    Neighbourhood,
    Option,
    WantedLevel,
    choose_wanted_level,
    eligible_options,
)
from t2i_policy.request.price import HIGH_PRESSURE, LOW_PRESSURE, backlog_price, slack_of
from t2i_policy.request.served import LoadState, Served, ServedReason, choose_served_level, pressure


@quick_dataclass(frozen=True, slots=True)
class Decided:
    """What was decided for one request, and from what."""

    near: Neighbourhood
    options: tuple[Option, ...]
    prompt_class: str
    wanted: WantedLevel
    served: Served
    pressed: float

    @property
    def reason(self) -> str:
        """Why the served level is what it is: the plan's, the load's or the deadline's reason, else the prompt's."""
        return self.wanted.reason if self.served.reason is ServedReason.AS_WANTED else self.served.reason

    @property
    def quality_percent(self) -> float:
        """Expected quality of the served level, percent of exact."""
        return 100 * (1 - self.served.expected_loss)


@quick_dataclass(frozen=True, slots=True)
class Arrival:
    """One request as it arrives: what it allows, its neighbour, seconds to its deadline, a draw from [0, 1).

    `step_cost`: what one of its steps costs, in steps of the pool's default size.
    """

    limits: Limits
    near: Neighbourhood
    left_s: float
    draw: float
    step_cost: float = 1.0


class JudgedPrompt(NamedTuple):
    """What depends on the prompt alone, not on the pool."""

    options: tuple[Option, ...]
    wanted: WantedLevel
    prompt_class: str


@dataclass(frozen=True, slots=True)
class Rules:
    """What decisions are made by: the pool's ladder, SLO and floor, the measured profile, and the prompt classes.

    `tolerance` is the loss that counts as none, `max_loss` the pool's floor as a fraction.
    """

    ladder: Ladder
    profile: LevelProfile
    slo_s: float
    classes: ClassTable
    tolerance: float = HARMLESS_LOSS
    max_loss: float = 1.0

    def corrected(self, corrections: Corrections) -> "Rules":
        """These rules by the profile with these corrections in place of those before."""
        profile = self.profile.corrected(corrections)
        return build_rules(self.ladder, profile, self.slo_s, self.max_loss, self.tolerance)

    def decide(self, arrival: Arrival, pool: PoolView, drawn_from: Plan = NO_PLAN) -> Decided:
        """`drawn_from`: the plan of a Fixed mix, whose owner chose the levels; only a backlog bends them."""
        limits, near = arrival.limits, arrival.near
        options, wanted, prompt_class = self.judge(near, limits)
        drawn = drawn_from.draw(prompt_class, arrival.draw)
        if not pool.parts:
            best = self._offer(wanted, options, arrival, Resource(pool, self._pressed(pool, "")), drawn)
        else:
            pressed = {model: self._pressed(pool.of_model(model), model) for model in ("", *self.ladder.models)}
            offers = [
                self._offer(
                    self._wanted(own, near, limits),
                    own,
                    arrival,
                    Resource(pool.of_model(model), pressed[model], relief(pressed, model)),
                    drawn,
                )
                for model, own in options_by_model(options).items()
            ]
            best = choose_offer(offers, wanted.level, drawn, arrival.left_s, self.tolerance)
        return Decided(near, options, prompt_class, wanted, best.served, best.pressed)

    def _offer(
        self, wanted: WantedLevel, options: tuple[Option, ...], arrival: Arrival, at: Resource, drawn: Level | None
    ) -> Offer:
        """What the workers there would serve: all hold the model of these options."""
        full, later = self.ladder.full_schedule(wanted.level.model), RELIEVED * at.relief
        price = backlog_price(
            at.pressed,
            arrival.limits.max_loss,
            full.num_inference_steps,
            low=LOW_PRESSURE + later,
            high=HIGH_PRESSURE + later,
        )
        load = LoadState(arrival.left_s, price * arrival.step_cost, drawn)
        served = choose_served_level(wanted, options, at.pool.for_cost(arrival.step_cost), load)
        return Offer(served, load.price, at.pressed)

    def _pressed(self, pool: PoolView, model: str) -> float:
        full = self.ladder.full_schedule(model).num_inference_steps
        return pressure(pool, slack_of(self.slo_s, pool.alone_s(full)))

    def slack_s(self, pool: PoolView) -> float:
        """What an exact image leaves of the SLO in this pool."""
        return slack_of(self.slo_s, pool.alone_s(self.ladder.base_steps))

    def judge(self, near: Neighbourhood, limits: Limits) -> JudgedPrompt:
        """What is known before the pool is looked at."""
        options = eligible_options(self.ladder, self.profile, near, limits)
        wanted = [self._wanted(own, near, limits) for own in options_by_model(options).values()]
        cheapest = cheapest_wanted(wanted, self.profile, self.tolerance) if len(wanted) > 1 else wanted[0]
        return JudgedPrompt(options, cheapest, self.classes.classify(near, limits))

    def _wanted(self, options: tuple[Option, ...], near: Neighbourhood, limits: Limits) -> WantedLevel:
        return choose_wanted_level(self.ladder, options, near, limits, self.tolerance)

    def label(self, level: Level) -> str:
        """The level's short name."""
        return level.label(self.ladder.base_steps)


def build_rules(
    ladder: Ladder, profile: LevelProfile, slo_s: float, max_loss: float, tolerance: float = HARMLESS_LOSS
) -> Rules:
    """The rules of a pool; `max_loss` is its floor and `tolerance` the loss that counts as none, as fractions."""
    return Rules(ladder, profile, slo_s, build_classes(ladder, profile, max_loss, tolerance), tolerance, max_loss)
