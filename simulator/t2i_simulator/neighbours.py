"""The cache of similar prompts as decisions see it: precomputed similarities, no tensors.

It follows the rules of `t2i_cache.catalogue`. The nearest stored prompt is found, with a draw among nearly equal ones.
A byte cap is kept by the eviction policy; latents have a life time and a cap on reuses. Only exact runs are stored,
when their image is done. Without prompts, `DrawnNeighbours` draws similarities from a histogram instead.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

import numpy as np

from t2i_cache.catalogue import CANDIDATES, NEAR_EQUAL
from t2i_cache.stores import StoreLimits
from t2i_policy.eviction import CachedItem, EvictionPolicy, choose_evictions
from t2i_policy.request.options import Neighbourhood
from t2i_policy.steps_at_stake import StepsAtStake
from t2i_simulator.similarity import PromptSimilarities

Place = tuple[int, int]  # (prompt, skipped steps)
NO_PROMPT = -1


@dataclass(frozen=True, slots=True)
class FoundPrompt:
    """`entry` is the number of the cached prompt, or NO_PROMPT."""

    entry: int
    near: Neighbourhood


class Neighbours(Protocol):
    """`request` counts arrivals from 0."""

    def nearest(self, request: int, now_s: float, draw: float) -> FoundPrompt:
        """Find the most similar cached prompt."""

    def take(self, entry: int, skipped_steps: int, now_s: float) -> int:
        """Start a request from the entry: returns the largest stored step up to `skipped_steps`, or 0."""

    def store(self, request: int, now_s: float) -> None:
        """Store the latents of an exact run that is done."""


@dataclass(frozen=True, slots=True)
class CacheRules:
    """`latent_bytes` is the size of one latent; `steps_to_keep` are the steps whose latents are stored.

    `own_repeats` matters when the trace is longer than the list of prompts, which then starts again. If True, a prompt
    finds the entry of its earlier round, as it would in reality. If False, it finds itself only within one round, so
    that a short list does not turn a long trace into exact repeats.
    """

    limits: StoreLimits
    latent_bytes: int
    steps_to_keep: tuple[int, ...]
    own_repeats: bool = True
    eviction: EvictionPolicy = field(default_factory=StepsAtStake)


class PromptCache:
    """`prompt_of` holds the numbers of the unique prompts in order of arrival; at its end it starts again."""

    def __init__(self, similarities: PromptSimilarities, prompt_of: Sequence[int], rules: CacheRules) -> None:
        self._similarities = similarities
        self._prompt_of = list(prompt_of)
        self._rules = rules
        self._stored = bytearray(len(similarities))
        self._cycle_of = [NO_PROMPT] * len(similarities)
        self._first_asked: dict[int, int] = {}  # by prompt: the first request for it, in this cycle or at all
        self._steps: list[frozenset[int]] = [frozenset()] * len(similarities)
        self._items: dict[Place, CachedItem[Place]] = {}
        self._by_age: deque[tuple[float, int]] = deque()
        self.used_bytes = 0

    @property
    def num_entries(self) -> int:
        """Number of prompts with at least one latent."""
        return sum(self._stored)

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
        return FoundPrompt(entry, Neighbourhood(cosine, self._steps[entry], repeated=repeated))

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
        step = max((stored for stored in self._steps[entry] if stored <= skipped_steps), default=0)
        if step:
            item = self._items[entry, step]
            self._items[entry, step] = replace(item, hits=item.hits + 1, used_s=now_s)
            if item.hits >= self._rules.limits.max_reuses:  # hits start at 1, so this was the last allowed use
                self._drop((entry, step))
        return step

    def store(self, request: int, now_s: float) -> None:
        """A prompt whose latents are all stored in this cycle stays as it is."""
        cycle, place = divmod(request, len(self._prompt_of))
        prompt, steps = self._prompt_of[place], self._rules.steps_to_keep
        if not steps or (self._steps[prompt].issuperset(steps) and self._cycle_of[prompt] == cycle):
            return
        for step in self._steps[prompt]:  # a prompt of which some latents were evicted is stored as a whole again
            self._drop((prompt, step))
        for step in steps:
            self._items[prompt, step] = CachedItem((prompt, step), step, self._rules.latent_bytes, 1, now_s, now_s)
        self.used_bytes += len(steps) * self._rules.latent_bytes
        self._steps[prompt] = frozenset(steps)
        self._stored[prompt] = True
        self._cycle_of[prompt] = cycle
        self._by_age.append((now_s, prompt))
        capacity_bytes = self._rules.limits.capacity_bytes
        if self.used_bytes > capacity_bytes:
            prompts = [[self._items[other, step] for step in steps] for other, steps in enumerate(self._steps) if steps]
            for key in choose_evictions(self._rules.eviction, prompts, now_s, self.used_bytes, capacity_bytes):
                self._drop(key)

    def _expire(self, now_s: float) -> None:
        oldest_s = now_s - self._rules.limits.ttl_s
        while self._by_age and self._by_age[0][0] < oldest_s:
            stored_s, prompt = self._by_age.popleft()
            for step in self._steps[prompt]:
                if self._items[prompt, step].stored_s == stored_s:  # else it was stored again since
                    self._drop((prompt, step))

    def _drop(self, key: Place) -> None:
        prompt, step = key
        self.used_bytes -= self._items.pop(key).size_bytes
        self._steps[prompt] = self._steps[prompt] - {step}
        if not self._steps[prompt]:
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
