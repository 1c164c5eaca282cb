"""What knowing the future could save: a bound that nobody can beat, and a clairvoyant that really runs.

Belady's rule is not optimal here: a request can be served by any similar prompt, at several depths, and a hit decides
what is stored next. So two figures stand in for the optimum.

`bound_percent` is an upper bound on what any eviction policy and any lookup can save at a given cache size, under each
of the storing rules. It lets every prompt store its whole ladder, and every request use the best of all stored latents.
It asks only that the total item-time in use stays within cache size x time. That is the space-time relaxation of PFOO-L
(Berger, Beckmann, Harchol-Balter, SIGMETRICS 2018):

    a request t that uses item i holds it at least since i's last possible use (or its birth): cost c(t, i)
    bound = min over prices m >= 0 of  m x size x n + sum over t of max(0, max over i of K_i - m x c(t, i))

Holds of different requests on one item never overlap, so the costs add up to no more than what a real cache holds.

`Clairvoyant` is an eviction policy that reads the coming prompts: a heuristic, neither optimal nor a bound. It gives up
what the next `LOOKAHEAD` prompts would use least, were nothing else stored meanwhile; sooner uses count for more.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from bench.eviction.replay import LADDER, PromptSequence, allowed_rungs
from t2i_policy.eviction import CachedItem
from t2i_simulator.lineage import BASE_STEPS

K = TypeVar("K")
Floats = npt.NDArray[np.float64]
LOOKAHEAD = 500
PRICES = (0.0, *np.geomspace(1e-4, 25.0, 200).tolist())


@dataclass(frozen=True, slots=True)
class PossibleUses:
    """Every possible use of an item: by which request, steps saved, and prompts for which it must be held."""

    request: npt.NDArray[np.int64]
    steps: Floats
    held: Floats
    num_requests: int


def possible_uses(workload: PromptSequence) -> PossibleUses:
    """All (request, earlier prompt, rung) triples whose similarity suffices."""
    rungs = np.tril(allowed_rungs(workload.vectors @ workload.vectors.T), -1)
    request, source = np.nonzero(rungs)
    count = rungs[request, source]
    request, source = np.repeat(request, count), np.repeat(source, count)
    rung = np.arange(len(request)) - np.repeat(np.cumsum(count) - count, count)
    item = source * len(LADDER) + rung
    order = np.lexsort((request, item))
    request, source, rung, item = request[order], source[order], rung[order], item[order]
    is_first = np.r_[True, item[1:] != item[:-1]][: len(item)]
    since = np.where(is_first, source, np.r_[0, request[:-1]][: len(item)])
    return PossibleUses(request, np.array(LADDER, np.float64)[rung], (request - since).astype(np.float64), len(rungs))


def bound_percent(uses: PossibleUses, capacity_items: int) -> float:
    """The bound of the module's formula, in percent of all denoising steps."""
    best = float("inf")
    for price in PRICES:
        gain = np.zeros(uses.num_requests)
        np.maximum.at(gain, uses.request, uses.steps - price * uses.held)
        best = min(best, price * capacity_items * uses.num_requests + float(gain.sum()))
    return 100.0 * best / (BASE_STEPS * uses.num_requests)


class Clairvoyant:
    """A policy that reads the coming prompts of one sequence, at one prompt every `spacing_s`."""

    def __init__(self, workload: PromptSequence, spacing_s: float = 1.0) -> None:
        self._similarity = workload.vectors @ workload.vectors.T
        self._spacing_s = spacing_s

    def ranked(self, prompts: Iterable[Collection[CachedItem[K]]], now_s: float) -> list[CachedItem[K]]:
        """Least used by the coming prompts first; of unused ones, the smallest K."""
        stored = [list(items) for items in prompts]
        worth = self._worth(stored, round(now_s / self._spacing_s))
        rated = [(worth[at, LADDER.index(i.skipped_steps)], i) for at, items in enumerate(stored) for i in items]
        return [item for _, item in sorted(rated, key=lambda one: (one[0], one[1].skipped_steps))]

    def _worth(self, stored: list[list[CachedItem[K]]], now: int) -> Floats:
        """[prompts, rungs]: steps that the coming prompts save by each, each divided by how far off it is."""
        places = [int(getattr(items[0].key, "entry_id", "0")) for items in stored]
        coming = np.arange(now + 1, min(now + 1 + LOOKAHEAD, len(self._similarity)))
        worth = np.zeros((len(stored), len(LADDER)))
        if not len(coming):
            return worth
        similarity = self._similarity[np.ix_(coming, np.array(places))]
        nearest = similarity.argmax(1)
        allowed = allowed_rungs(similarity[np.arange(len(coming)), nearest])
        has = np.zeros((len(stored), len(LADDER)), bool)
        for at, items in enumerate(stored):
            has[at, [LADDER.index(item.skipped_steps) for item in items]] = True
        highest = np.maximum.accumulate(np.where(has, np.arange(len(LADDER)), -1), axis=1)
        served = np.where(allowed > 0, highest[nearest, allowed - 1], -1)
        hit = served >= 0
        gains = np.array(LADDER)[served[hit]] / (coming[hit] - now)
        np.add.at(worth, (nearest[hit], served[hit]), gains)
        return worth
