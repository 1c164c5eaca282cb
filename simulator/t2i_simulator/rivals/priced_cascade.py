"""A cascade by our prices: route before a prompt runs, and look at the light image where that is worth its steps.

Ours routes by what a model loses on average. A cascade sees what the light image lost, and draws again those that
lost most. This one does both. The heavy model's offer is h = loss + price x cost (`request.models`). A light image lost
L, and price_light is the light model's own price:

    heavy at once      h
    light, then look   price_light x cost_light + E[min(L, h)]      drawn again if L > h
    light for good     price_light x cost_light + E[L]

so at rest everybody starts at the heavy model, and past its barrier nobody is drawn again. L is log-normal around what
the profile promises, as `true_loss` has it. What the discriminator sees is L times an error of a spread of `errs`; the
policy knows the spread and judges by E[L | seen]. The steps of the light run are spent either way. Its image goes out
at the deadline if the heavy one is not done by then.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp, isinf, log, sqrt
from statistics import NormalDist

from t2i_policy.planning.plan import Plan
from t2i_policy.policies import PoolState, PromptAware
from t2i_policy.pool_view import PoolView
from t2i_policy.request.decide import Arrival, Decided, Rules
from t2i_policy.request.models import Offer, choose_offer
from t2i_policy.request.options import HARMLESS_LOSS
from t2i_simulator.rivals.common import PlacedAsOurs, RivalDecided
from t2i_simulator.rivals.several_models import light_level, offers_of
from t2i_simulator.true_loss import SPREAD

STANDARD = NormalDist()


@dataclass(frozen=True, slots=True)
class LightImage:
    """What is known of a light image's loss before it is drawn, and what looking at it will tell."""

    mean_loss: float
    errs: float
    spread: float = SPREAD

    @property
    def _told(self) -> float:
        """Of the variance of what is seen, the part that is the loss itself."""
        return self.spread**2 / (self.spread**2 + self.errs**2)

    def least_of(self, other: float) -> float:
        """E[min(E[L | seen], other)]."""
        if other <= 0 or self.mean_loss <= 0:
            return max(0.0, min(other, self.mean_loss))
        spread = self.spread * sqrt(self._told)
        at = (log(other / self.mean_loss) + spread**2 / 2) / spread
        return self.mean_loss * STANDARD.cdf(at - spread) + other * (1 - STANDARD.cdf(at))

    def seen_at(self, loss: float) -> float:
        """What is seen of an image that is then expected to have lost `loss`."""
        if loss <= 0 or self.mean_loss <= 0:
            return 0.0
        middle, told = log(self.mean_loss) - self.spread**2 / 2, self._told
        return exp(middle + (log(loss) - middle - self.spread**2 * (1 - told) / 2) / told)


@dataclass(frozen=True, slots=True)
class PricedCascade(PlacedAsOurs):
    """`errs`: the spread of the discriminator's error."""

    errs: float = 0.0
    name: str = "ours-cascade"
    source: str = "ours, with a look at the light image where its price says that this pays"

    def replan(self, rules: Rules, before: Plan, seen: PoolState) -> Plan:
        return PromptAware().replan(rules, before, seen)

    def serve(self, rules: Rules, plan: Plan, arrival: Arrival, pool: PoolView) -> Decided:  # noqa: ARG002
        offers = offers_of(rules, arrival, pool, {})
        options, wanted, prompt_class = rules.judge(arrival.near, arrival.limits)
        best = choose_offer(list(offers.values()), wanted.level, None, arrival.left_s, rules.tolerance)
        routed = Decided(arrival.near, options, prompt_class, wanted, best.served, best.pressed)
        light = offers.get(light_level(rules).model)
        if light is None or not self._looks(offers, light, arrival.left_s):
            return routed
        heavy = offers[""]
        return RivalDecided(
            arrival.near,
            options,
            prompt_class,
            wanted,
            light.served,
            light.pressed,
            then=heavy.served.level,
            bears=self._image(light).seen_at(_worth(heavy)),
            keeps=True,
        )

    def _image(self, light: Offer) -> LightImage:
        return LightImage(light.served.expected_loss, self.errs)

    def _looks(self, offers: Mapping[str, Offer], light: Offer, left_s: float) -> bool:
        heavy = offers.get("")
        if heavy is None or isinf(heavy.price) or isinf(light.price):
            return False
        if light.served.estimated_s + heavy.served.estimated_s > left_s:
            return False
        looking = light.price * light.served.level.cost + self._image(light).least_of(_worth(heavy))
        return looking < min(_worth(heavy), _worth(light))


def _worth(offer: Offer) -> float:
    """As `request.models` compares offers: a loss within the tolerance counts as none."""
    lost = 0.0 if offer.served.expected_loss <= HARMLESS_LOSS else offer.served.expected_loss
    return lost + offer.price * offer.served.level.cost
