"""Prompts through the real catalogue, one after another: how many denoising steps does the cache save?

A request takes the nearest cached prompt, as the gateway does, and skips the largest stored K' that NIRVANA's
similarity thresholds allow (arXiv 2312.04429). What is stored afterwards is the rule under test:

    FULL_RUNS   only a request that found nothing stores its latents (this project's rule, docs/decisions)
    EVERY_RUN   a request resumed at K' also stores its own latents above K'
    REFRESH     as FULL_RUNS, but a hit below `WEAK_STEPS` is run in full, and so stored

Every latent has one size. Prompts arrive `spacing_s` apart on a made-up clock.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from t2i_cache.catalogue import Catalogue, Neighbour
from t2i_cache.keys import LatentKey
from t2i_cache.stores import StoreLimits
from t2i_policy.eviction import EvictionPolicy
from t2i_simulator.lineage import BASE_STEPS, SKIPS, THRESHOLDS
from t2i_simulator.similarity import Vectors

LADDER = SKIPS[1:]
EDGES = np.array([THRESHOLDS[step] for step in LADDER])  # similarity above which each may be skipped
WEAK_STEPS = 15
LATENT_BYTES = 128 << 10  # SDXL at 1024 x 1024, half precision
SHELF = LatentKey("tenant", "model", "0", 0)


class StoringRule(StrEnum):
    FULL_RUNS = "only full runs store"
    EVERY_RUN = "every run stores"
    REFRESH = "weak hits run in full and store"


@dataclass(frozen=True, slots=True)
class PromptSequence:
    """Prompts in order with their vectors [n, d]; `entries[i]` names the entry of prompt i, equal for equal texts."""

    name: str
    vectors: Vectors
    entries: tuple[str, ...]

    @classmethod
    def of(cls, name: str, texts: list[str], vectors: Vectors) -> "PromptSequence":
        """Entries are named by the place of a text's first occurrence."""
        first: dict[str, int] = {}
        return cls(name, vectors, tuple(str(first.setdefault(text, place)) for place, text in enumerate(texts)))

    @property
    def num_items(self) -> int:
        """Latents there would be if every different prompt stored its whole ladder."""
        return len(set(self.entries)) * len(LADDER)


def allowed_rungs(similarity: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """How many rungs of LADDER each similarity allows, 0 to 5."""
    return np.searchsorted(EDGES, np.asarray(similarity, np.float64), side="left").astype(np.int64)


def usable_step(found: Neighbour | None, weakest: int) -> int:
    """The largest stored step that the similarity allows, 0 if none of at least `weakest`."""
    if found is None:
        return 0
    most = (0, *LADDER)[int(allowed_rungs(found.similarity))]
    step = max((step for step in found.steps if step <= most), default=0)
    return step if step >= weakest else 0


def replay(
    workload: PromptSequence, policy: EvictionPolicy, capacity_items: int, rule: StoringRule, spacing_s: float = 1.0
) -> npt.NDArray[np.int64]:
    """Steps saved by each prompt [n], of BASE_STEPS."""
    catalogue = Catalogue(StoreLimits(capacity_items * LATENT_BYTES, ttl_s=float("inf"), max_reuses=1 << 60), policy)
    draws = np.random.default_rng(0).random(len(workload.entries))
    weakest = WEAK_STEPS if rule is StoringRule.REFRESH else 0
    saved = np.zeros(len(workload.entries), np.int64)
    for place, entry in enumerate(workload.entries):
        now_s, vector = place * spacing_s, workload.vectors[place]
        found = catalogue.nearest(SHELF.scope, SHELF.model, vector, now_s, float(draws[place]))
        step = usable_step(found, weakest)
        if step and found is not None:
            catalogue.record_hit(replace(SHELF, entry_id=found.entry_id, step=step), now_s)
        saved[place] = step
        if step == 0 or rule is StoringRule.EVERY_RUN:
            passed = [(rung, LATENT_BYTES) for rung in LADDER if rung > step]
            catalogue.record_stored(replace(SHELF, entry_id=entry), vector, passed, now_s)
    return saved


def saved_percent(saved: npt.NDArray[np.int64]) -> float:
    return float(100.0 * saved.mean() / BASE_STEPS)
