"""The cache of similar prompts as decisions see it: precomputed similarities, no tensors.

It follows the rules of `t2i_cache.catalogue`. The nearest stored prompt is found, with a draw among nearly equal ones.
A byte cap is kept by the eviction policy; latents have a life time and a cap on reuses. Only exact runs are
stored, when their image is done. Without prompts, `DrawnNeighbours` draws similarities from a histogram instead.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

import numpy as np

from t2i_cache.catalogue import CANDIDATES, NEAR_EQUAL
from t2i_cache.stores import StoreLimits
from t2i_policy.eviction import CachedItem, EvictionPolicy, choose_evictions
from t2i_policy.quick_dataclass import quick_dataclass
from t2i_policy.request.options import Neighbourhood
from t2i_policy.steps_at_stake import StepsAtStake
from t2i_simulator.similarity import PromptSimilarities

NO_PROMPT = -1
FINAL = 1  # the only step that latents are of; eviction compares them by it


@quick_dataclass(frozen=True, slots=True)
class FoundPrompt:
    """`entry` is the number of the cached prompt, or NO_PROMPT."""

    entry: int
    near: Neighbourhood


class Neighbours(Protocol):
    """`request` counts arrivals from 0."""

    def nearest(self, request: int, now_s: float, draw: float) -> FoundPrompt:
        """Find the most similar cached prompt."""

    def take(self, entry: int, skipped_steps: int, now_s: float) -> int:
        """Start a request from the entry: returns the steps that it skips, 0 if the entry is gone."""

    def store(self, request: int, now_s: float) -> None:
        """Store the final latent of an exact run that is done."""


@dataclass(frozen=True, slots=True)
class CacheRules:
    """`latent_bytes` is the size of one latent; `skips` are the steps that a start may skip, none: nothing is stored.

    `own_repeats` matters when the trace is longer than the list of prompts, which then starts again. If True, a prompt
    finds the entry of its earlier round, as it would in reality. If False, it finds itself only within one round. So a
    short list does not turn a long trace into exact repeats.
    """

    limits: StoreLimits
    latent_bytes: int
    skips: tuple[int, ...]
    own_repeats: bool = True
    eviction: EvictionPolicy = field(default_factory=StepsAtStake)


class PromptCache:
    """`prompt_of` holds the numbers of the unique prompts in order of arrival; at its end it starts again."""

    def __init__(self, similarities: PromptSimilarities, prompt_of: Sequence[int], rules: CacheRules) -> None:
        self._similarities = similarities
        self._prompt_of = list(prompt_of)
        self._rules = rules
        self._skips = frozenset(rules.skips)
        self._stored = bytearray(len(similarities))
        self._cycle_of = [NO_PROMPT] * len(similarities)
        self._first_asked: dict[int, int] = {}  # by prompt: the first request for it, in this cycle or at all
        self._items: dict[int, CachedItem[int]] = {}
        self._by_age: deque[tuple[float, int]] = deque()
        self.used_bytes = 0

    @property
    def num_entries(self) -> int:
        """Number of prompts whose final latent is stored."""
        return len(self._items)

    def nearest(self, request: int, now_s: float, draw: float) -> FoundPrompt:
        self._expire(now_s)
        cycle, place = divmod(request, len(self._prompt_of))
        prompt = self._prompt_of[place]
        repeated = self._repeats(prompt, request)
        foreign = not self._rules.own_repeats and self._cycle_of[prompt] != cycle
        near: list[tuple[int, float]] = []
        for other, cosine in self._similarities.nearest(prompt, self._stored, prompt if foreign else NO_PROMPT):
            if near and cosine < near[0][1] - NEAR_EQUAL:
                break  # candidates come by falling similarity
            near.append((other, cosine))
            if len(near) == CANDIDATES:
                break
        if not near:
            return FoundPrompt(NO_PROMPT, Neighbourhood(None, frozenset(), repeated=repeated))
        entry, cosine = near[int(draw * len(near))]
        return FoundPrompt(entry, Neighbourhood(cosine, self._skips, repeated=repeated))

    def _repeats(self, prompt: int, request: int) -> bool:
        """Whether an earlier request had this prompt. Every request has a seed of its own."""
        first = self._first_asked.get(prompt, NO_PROMPT)
        known = first != NO_PROMPT and (
            self._rules.own_repeats or first // len(self._prompt_of) == self._cycle(request)
        )
        if not known:
            self._first_asked[prompt] = request
        return known and first != request

    def _cycle(self, request: int) -> int:
        return request // len(self._prompt_of)

    def take(self, entry: int, skipped_steps: int, now_s: float) -> int:
        item = self._items.get(entry)
        if item is None:
            return 0
        self._items[entry] = replace(item, hits=item.hits + 1, used_s=now_s)
        if item.hits >= self._rules.limits.max_reuses:  # hits start at 1, so this was the last allowed use
            self._drop(entry)
        return skipped_steps

    def store(self, request: int, now_s: float) -> None:
        """A prompt whose latent is stored in this cycle stays as it is."""
        cycle, place = divmod(request, len(self._prompt_of))
        prompt, rules = self._prompt_of[place], self._rules
        if not rules.skips or (prompt in self._items and self._cycle_of[prompt] == cycle):
            return
        if prompt in self._items:
            self._drop(prompt)
        self._items[prompt] = CachedItem(prompt, FINAL, rules.latent_bytes, 1, now_s, now_s)
        self.used_bytes += rules.latent_bytes
        self._stored[prompt] = True
        self._cycle_of[prompt] = cycle
        self._by_age.append((now_s, prompt))
        capacity_bytes = rules.limits.capacity_bytes
        if self.used_bytes > capacity_bytes:
            prompts = [[item] for item in self._items.values()]
            for key in choose_evictions(rules.eviction, prompts, now_s, self.used_bytes, capacity_bytes):
                self._drop(key)

    def _expire(self, now_s: float) -> None:
        oldest_s = now_s - self._rules.limits.ttl_s
        while self._by_age and self._by_age[0][0] < oldest_s:
            stored_s, prompt = self._by_age.popleft()
            item = self._items.get(prompt)
            if item is not None and item.stored_s == stored_s:  # else it was stored again since
                self._drop(prompt)

    def _drop(self, prompt: int) -> None:
        self.used_bytes -= self._items.pop(prompt).size_bytes
        self._stored[prompt] = False


class DrawnBand(NamedTuple):
    """Similarities from `lower` to `upper`, and the share of requests that draw one of them."""

    lower: float
    upper: float
    share: float


class DrawnNeighbours:
    """Draws a similarity for each request from a histogram. Every latent is stored."""

    def __init__(self, bands: Sequence[DrawnBand], steps: Iterable[int], num: int, seed: int) -> None:
        lower, upper, shares = np.array(bands).T
        random = np.random.default_rng([seed, 1])
        chosen = random.choice(len(bands), num, p=shares / shares.sum())
        within = random.random(num)
        self._similarity = (lower[chosen] + within * (upper - lower)[chosen]).tolist()
        self._steps = frozenset(steps)

    def nearest(self, request: int, now_s: float, draw: float) -> FoundPrompt:  # noqa: ARG002
        return FoundPrompt(request, Neighbourhood(self._similarity[request], self._steps))

    def take(self, entry: int, skipped_steps: int, now_s: float) -> int:  # noqa: ARG002
        return skipped_steps

    def store(self, request: int, now_s: float) -> None:
        """Everything is stored already."""
