"""Which model serves a request, in a pool whose workers hold several.

Workers of different models are different resources: each model has its own workers, its own backlog and so its own
price of a step. Within a model the level is chosen as in a pool of one (`served`). Each model so makes one offer:

    served = argmin over models m   D(s, j_m) + price_m * cost(j_m)        among those that are in time, if any is

A loss within the tolerance counts as none, and of equals the model of the wanted level serves. So at rest nobody leaves
the wanted level. D is the loss against the exact image of the pool's own model, whichever model serves. So the floor
holds across models. Past the barrier of `price` a step has no price any more: then the model that is least behind
serves. A model without a ready worker offers nothing, unless no model has one.

Where another model has room, nobody needs to be late by the backlog of this one. So its barrier stands later, and its
workers never run dry between bursts. How much later depends on how far the other is from its own barrier:

    relief(m) = max over other models o of max(0, 1 - pressure(o) / HIGH),   LOW and HIGH of m + RELIEVED * relief(m)

A Fixed mix draws a level, and with it a model. Another one serves if that one would be late, or may not.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import inf, isinf
from typing import NamedTuple

from t2i_policy.level import Level
from t2i_policy.pool_view import PoolView
from t2i_policy.profile import LevelProfile
from t2i_policy.request.options import Option, WantedLevel
from t2i_policy.request.price import HIGH_PRESSURE
from t2i_policy.request.served import Served, ServedReason

RELIEVED = 0.25  # of the slack; from 0.5 on images come late (docs/decisions/2026-11-30-a-price-for-each-model.md)


class Resource(NamedTuple):
    """The workers that hold a model: the share of the slack that is eaten there, and the relief by other models."""

    pool: PoolView
    pressed: float
    relief: float = 0.0


class Offer(NamedTuple):
    """What a model would serve a request at, and the price of a step there. `pressed`: the eaten share of its slack."""

    served: Served
    price: float
    pressed: float


def relief(pressed: Mapping[str, float], model: str) -> float:
    """From 0 to 1: how much room another model has, by the pressure of each."""
    room = (1 - at / HIGH_PRESSURE for other, at in pressed.items() if other != model)
    return max([0.0, *room])


def options_by_model(options: Iterable[Option]) -> Mapping[str, tuple[Option, ...]]:
    """In the order of the options."""
    found: dict[str, list[Option]] = {}
    for option in options:
        found.setdefault(option.level.model, []).append(option)
    return {model: tuple(own) for model, own in found.items()}


def cheapest_wanted(wanted: Sequence[WantedLevel], profile: LevelProfile, tolerance: float) -> WantedLevel:
    """Of what each model is wanted at, the harmless one that takes least of a worker; without any, the least loss."""
    harmless = [one for one in wanted if one.expected_loss <= tolerance]
    if not harmless:
        return min(wanted, key=lambda one: one.expected_loss)
    return min(harmless, key=lambda one: (profile.own_steps(one.level), one.expected_loss))


def choose_offer(offers: Sequence[Offer], wanted: Level, drawn: Level | None, left_s: float, tolerance: float) -> Offer:
    """`offers` are not empty; `drawn` is what a Fixed mix drew. The offer says why, if another model serves."""
    able = [offer for offer in offers if offer.served.estimated_s < inf] or offers
    in_time = [offer for offer in able if offer.served.estimated_s <= left_s]
    drawn_model = None if drawn is None else drawn.model
    held_to = [offer for offer in in_time if offer.served.level.model == drawn_model]

    def worth(offer: Offer) -> tuple[bool, float, bool, float]:
        served = offer.served
        lost = 0.0 if served.expected_loss <= tolerance else served.expected_loss
        cost = offer.pressed if isinf(offer.price) else lost + offer.price * served.level.cost
        return isinf(offer.price), cost, served.level.model != wanted.model, served.estimated_s

    best = min(held_to or in_time or able, key=worth)
    reason = _why_left(best.served, wanted, drawn, able, in_time)
    return best._replace(served=replace(best.served, reason=reason))


def _why_left(
    served: Served, wanted: Level, drawn: Level | None, able: Sequence[Offer], in_time: Sequence[Offer]
) -> ServedReason:
    """The reason of its model's offer, unless another model than the wanted one serves as that model would itself."""
    if served.level.model == wanted.model:
        return served.reason
    if served.level == drawn and served.reason is ServedReason.AS_WANTED:
        return ServedReason.PLANNED
    if not _has(able, wanted.model):
        return ServedReason.MODEL_GONE
    if served.reason is not ServedReason.AS_WANTED:
        return served.reason
    return ServedReason.LOAD if _has(in_time, wanted.model) else ServedReason.DEADLINE


def _has(offers: Sequence[Offer], model: str) -> bool:
    return any(offer.served.level.model == model for offer in offers)
