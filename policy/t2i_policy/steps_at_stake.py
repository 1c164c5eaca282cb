"""Our eviction policy: give up the latents with the fewest denoising steps at stake per byte.

Decided per latent from what its prompt still stores beside it. It also counts how often the prompt's latents were used,
and for how long none was. People iterate on a prompt for a while and move on. So a prompt's chance of another similar
request falls with its silence. A latent is worth only what its absence would cost, as the next lower one takes its
place.

    stake(p, K)  = lost(p, K) x returns(p) / bytes
    lost(p, K)   = (net(K) - net(K_below)) x sum of w over the ladder's rungs K <= w < K_above
                   K_below, K_above: the next stored steps of p (none below: net 0; no limit above the highest)
                   w: a request that could skip w steps comes in proportion to w, as sessions change little by little
    net(K)       = max(0, K - FRESH_WORTH x (K_top - K))
                   what a hit saves, less what it costs: only full runs store latents, so a hit keeps its request from
                   storing its own. Those would serve the session's next requests K_top - K steps deeper.
    returns(p)   = sqrt(uses) / silence_s ** SILENCE_POWER
                   uses: 1 + hits of p's latents; silence_s: since one was stored or used, at least MOMENT_S

Frequency enters by its root only: ten hits of a session that ended say little about tomorrow. Silence enters by a power
as in hyperbolic caching (Blankstein et al., ATC'17; there 1 / age), so the order does not depend on the unit of time.
The division by bytes is GreedyDual-Size's (Cao, Irani, USITS'97). Within a prompt, latents are given up one after
another, least lost first. Each is judged with the holes that the earlier ones left. So a cold prompt thins out to the
one or two steps that serve most requests, instead of vanishing.

It must never rank a latent by its own hits alone: those of a missing rung fall to the one below. Cost: O(n log n) for
n latents. No term for redundancy between prompts: only full runs store, so a new prompt is by construction one that no
stored prompt covered. Where every run stores, such a term was tried: no clear gain.
"""

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from typing import TypeVar

from t2i_policy.eviction import CachedItem

K = TypeVar("K")
FRESH_WORTH = 0.5  # later requests of the session that a hit's own latents would have served: 0 where every run stores
SILENCE_POWER = 1.25  # how fast the chance of return falls with silence: 1 as 1 / silence, more where sessions end
MOMENT_S = 1.0  # the grain of silence, against division by zero
_step = attrgetter("skipped_steps")


@dataclass(frozen=True, slots=True)
class StepsAtStake:
    """Gives up the latent that is expected to save the fewest steps for the bytes it takes.

    Raises:
        ValueError: a negative constant.
    """

    fresh_worth: float = FRESH_WORTH
    silence_power: float = SILENCE_POWER

    def __post_init__(self) -> None:
        if self.fresh_worth < 0:
            raise ValueError(f"fresh_worth must not be negative, got {self.fresh_worth}")
        if self.silence_power < 0:
            raise ValueError(f"silence_power must not be negative, got {self.silence_power}")

    def ranked(self, prompts: Iterable[Collection[CachedItem[K]]], now_s: float) -> list[CachedItem[K]]:
        """Fewest steps at stake per byte first; of latents without a stake, those of the most silent prompt."""
        kept = [sorted(items, key=_step) for items in prompts if items]
        ladder = tuple(sorted({item.skipped_steps for items in kept for item in items}))
        staked: list[tuple[float, float, CachedItem[K]]] = []
        for items in kept:
            returns = self._returns(items, now_s)
            for place, lost in losses_in_turn(tuple(map(_step, items)), ladder, self.fresh_worth):
                item = items[place]
                staked.append((lost * returns / max(1, item.size_bytes), returns, item))
        staked.sort(key=lambda one: one[:2])  # stable: of equals, the one its prompt gives up first
        return [item for _, _, item in staked]

    def _returns(self, items: Collection[CachedItem[K]], now_s: float) -> float:
        uses, used_s = 1, -math.inf
        for item in items:
            uses += item.hits - 1
            used_s = max(used_s, item.used_s)
        return math.sqrt(uses) / math.pow(max(MOMENT_S, now_s - used_s), self.silence_power)


@lru_cache(maxsize=4096)  # few sets of steps exist, so each is thought through once
def losses_in_turn(
    steps: tuple[int, ...], ladder: tuple[int, ...], fresh_worth: float
) -> tuple[tuple[int, float], ...]:
    """(place in `steps`, steps lost) in the order in which a prompt with these stored steps gives them up.

    `steps` and `ladder` ascend, and every step is on the ladder. Losses never fall along the order:
    whatever goes makes the others dearer.
    """
    left = list(range(len(steps)))
    turns: list[tuple[int, float]] = []
    while left:
        alone = _losses([steps[place] for place in left], ladder, fresh_worth)
        least = min(range(len(left)), key=alone.__getitem__)
        turns.append((left.pop(least), alone[least]))
    return tuple(turns)


def _losses(steps: list[int], ladder: tuple[int, ...], fresh_worth: float) -> list[float]:
    """What each stored step's absence alone would cost."""
    net = [max(0.0, step - fresh_worth * (ladder[-1] - step)) for step in steps]
    above = (*steps[1:], math.inf)
    return [
        (worth - below) * sum(rung for rung in ladder if step <= rung < upper)
        for step, worth, below, upper in zip(steps, net, (0.0, *net), above, strict=False)
    ]
