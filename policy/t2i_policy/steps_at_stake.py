"""Our eviction policy: give up the latents with the fewest denoising steps at stake per byte.

Decided per latent from what its prompt still stores beside it, how often the prompt's latents were used, and for how
long none was. People iterate on a prompt for a while and move on, so a prompt's chance of another similar request falls
fast with its silence; and a latent is worth only what its absence would cost, as the next lower one takes its place.

    stake(p, K)  = lost(p, K) x returns(p) / bytes
    lost(p, K)   = (K - K_below) x sum of w over the ladder's rungs K <= w < K_above
                   K_below, K_above: the next stored steps of p (0 below the lowest, no limit above the highest)
                   w: a request that could skip w steps comes in proportion to w, as sessions change little by little
    returns(p)   = sqrt(uses) / silence_s ** SILENCE_POWER
                   uses: 1 + hits of p's latents; silence_s: since one was stored or used, at least MOMENT_S

Frequency enters by its root only: ten hits of a session that ended say little about tomorrow. The power of the silence
is above the 1 / age of hyperbolic caching (Blankstein et al., ATC'17), because sessions end. The division by bytes is
GreedyDual-Size's (Cao, Irani, USITS'97). Within a prompt, latents are given up one after another,
least lost first, each time with the holes that the earlier ones left: a cold prompt thins out to the one or two steps
that serve most requests instead of vanishing.

It must never rank a latent by its own hits alone: those of a gone neighbour rung fall to the one below. It costs
O(n log n) for n latents. No term for redundancy between prompts: only full runs store latents, so a new prompt is by
construction one that no stored prompt covered (measured for the case that every run stores: nothing gained).
"""

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

from t2i_policy.eviction import CachedItem

K = TypeVar("K")
SILENCE_POWER = 1.5  # how fast the chance of return falls with silence: 1 as 1 / age, more where sessions end
MOMENT_S = 1.0  # the grain of silence: latents used within the last moment count as equally recent


@dataclass(frozen=True, slots=True)
class StepsAtStake:
    """See the module.

    Raises:
        ValueError: a constant out of range.
    """

    silence_power: float = SILENCE_POWER
    moment_s: float = MOMENT_S

    def __post_init__(self) -> None:
        if self.silence_power < 0:
            raise ValueError(f"silence_power must not be negative, got {self.silence_power}")
        if self.moment_s <= 0:
            raise ValueError(f"moment_s must be above 0, got {self.moment_s}")

    def ranked(self, prompts: Iterable[Collection[CachedItem[K]]], now_s: float) -> list[CachedItem[K]]:
        """Fewest steps at stake per byte first."""
        kept = [sorted(items, key=lambda item: item.skipped_steps) for items in prompts]
        ladder = tuple(sorted({item.skipped_steps for items in kept for item in items}))
        staked: list[tuple[float, CachedItem[K]]] = []
        for items in kept:
            turns = losses_in_turn(tuple(item.skipped_steps for item in items), ladder)
            returns = self._returns(items, now_s)
            staked += [(lost * returns / max(1, items[at].size_bytes), items[at]) for at, lost in turns]
        staked.sort(key=lambda one: one[0])  # stable: of equals, the one its prompt gives up first
        return [item for _, item in staked]

    def _returns(self, items: Sequence[CachedItem[K]], now_s: float) -> float:
        if not items:
            return 0.0
        uses = 1 + sum(item.hits - 1 for item in items)
        silence_s = max(self.moment_s, now_s - max(item.used_s for item in items))
        return math.sqrt(uses) / math.pow(silence_s, self.silence_power)


@lru_cache(maxsize=4096)  # few sets of steps exist, so each is thought through once
def losses_in_turn(steps: tuple[int, ...], ladder: tuple[int, ...]) -> tuple[tuple[int, float], ...]:
    """(place in `steps`, steps lost) in the order in which a prompt with these stored steps gives them up.

    `steps` and `ladder` ascend, and every step is on the ladder. Losses never fall along the order.
    """
    left = list(range(len(steps)))
    turns: list[tuple[int, float]] = []
    lost = 0.0
    while left:
        alone = _losses([steps[place] for place in left], ladder)
        least = min(range(len(left)), key=alone.__getitem__)
        lost = max(lost, alone[least])
        turns.append((left.pop(least), lost))
    return tuple(turns)


def _losses(steps: Sequence[int], ladder: Sequence[int]) -> list[float]:
    """What each stored step's absence alone would cost."""
    below = (0, *steps)
    above = (*steps[1:], float("inf"))
    return [
        (step - lower) * float(sum(rung for rung in ladder if step <= rung < upper))
        for step, lower, upper in zip(steps, below, above, strict=False)
    ]
