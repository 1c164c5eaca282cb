"""The workload: from a pool, arrivals and prompts to a scenario that any number of policies can be run on.

With prompts, neighbours come from real embeddings and a cache of the pool's size. Without, each request draws its
similarity from the lineage's histogram (the 20,000-query log of the AccuScale artifact) and every latent is there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice

from t2i_api.pool import ModelPart, PoolSpec
from t2i_cache.catalogue import CatalogueLimits
from t2i_policy.level import Ladder
from t2i_simulator import lineage
from t2i_simulator.faults import Fault
from t2i_simulator.neighbours import CacheRules, DrawnNeighbours, Neighbours, PromptCache
from t2i_simulator.scenario import Scenario, ServiceTarget
from t2i_simulator.similarity import Likeness
from t2i_simulator.workers import Group

ITEM_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}
LOWEST_DRAWN = 0.3  # drawn similarities below the first threshold lie from here up to it


@dataclass(frozen=True, slots=True)
class TracePrompts:
    """Unique prompts' likeness, and which of them each line of the file is (cycled over the arrivals)."""

    likeness: Likeness
    of_line: Sequence[int]
    own_repeats: bool = True


@dataclass(frozen=True, slots=True)
class Workload:
    """A scenario, and each request's prompt by number."""

    scenario: Scenario
    prompt_of: list[int]


def latent_bytes(model: ModelPart) -> int:
    """Bytes of one latent: 4 channels of an eighth of the size, as SD and SDXL have; a builtin model has no VAE and
    keeps three values a pixel.
    """
    pixels = model.width * model.height
    values = 3 * pixels if model.source.startswith("builtin://") else 4 * pixels // 64
    return values * ITEM_BYTES[model.precision]


def build_workload(
    spec: PoolSpec,
    groups: tuple[Group, ...],
    arrived_s: Sequence[float],
    prompts: TracePrompts | None,
    seed: int = 0,
    faults: tuple[Fault, ...] = (),
) -> Workload:
    """Losses are read from the first group's profile."""
    num, ladder = len(arrived_s), spec.ladder
    prompt_of = list(range(num)) if prompts is None else list(islice(cycle(prompts.of_line), num))

    def make_neighbours() -> Neighbours:
        if prompts is None:
            return drawn_neighbours(ladder, num, seed)
        limits = CatalogueLimits(spec.cache.capacity_mebibytes << 20, spec.cache.ttl_seconds)
        keep = () if spec.cache.scope == "Off" else ladder.steps_to_keep
        rules = CacheRules(limits, latent_bytes(spec.model), keep, prompts.own_repeats)
        return PromptCache(prompts.likeness, prompts.of_line, rules)

    target = ServiceTarget.of(spec)
    profile = groups[0].profile
    scenario = Scenario(ladder, profile, groups, target, arrived_s, make_neighbours, seed=seed, faults=faults)
    return Workload(scenario, prompt_of)


def drawn_neighbours(ladder: Ladder, num: int, seed: int) -> DrawnNeighbours:
    """Similarities from the lineage's histogram."""
    shares = lineage.shares()
    bands = [(max(lower, LOWEST_DRAWN), min(upper, 1.0), shares[skip]) for skip, lower, upper in lineage.bands()]
    return DrawnNeighbours(bands, ladder.steps_to_keep, num, seed)
