"""Build a scenario from a pool, arrivals and prompts. Any number of policies can run on it.

With prompts, neighbours come from real embeddings and a cache of the pool's size. Without prompts, each request draws
its similarity from a histogram (the 20,000-query log of the AccuScale artifact), and every latent is stored.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice

from t2i_api.model import ModelPart
from t2i_api.pool import PoolSpec
from t2i_cache.stores import StoreLimits
from t2i_policy.level import Ladder
from t2i_simulator import lineage
from t2i_simulator.faults import Fault
from t2i_simulator.neighbours import CacheRules, DrawnBand, DrawnNeighbours, Neighbours, PromptCache
from t2i_simulator.scenario import OtherSize, Scenario, ServiceTarget
from t2i_simulator.similarity import PromptSimilarities
from t2i_simulator.workers import Group

ITEM_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}
LOWEST_DRAWN = 0.3  # the lowest band is open below; draws from it begin here


@dataclass(frozen=True, slots=True)
class TracePrompts:
    """The similarities of the unique prompts, and for each line of the file which of them it is."""

    similarities: PromptSimilarities
    of_line: Sequence[int]
    own_repeats: bool = True


@dataclass(frozen=True, slots=True)
class Workload:
    """`prompt_of` holds the number of each request's prompt."""

    scenario: Scenario
    prompt_of: list[int]


def latent_bytes(model: ModelPart) -> int:
    """Bytes of one latent: 4 channels at an eighth of the image's size, as in SD and SDXL.

    A builtin model has no VAE; its latents hold three values a pixel.
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
    other_sizes: tuple[OtherSize, ...] = (),
) -> Workload:
    """Decisions read losses from the profile of the first group, and levels too where the pool names none. The list of
    prompts starts again at its end. There are as many gateways as the pool has.
    """
    models = tuple(dict.fromkeys(group.model for group in groups if group.model))
    num, ladder = len(arrived_s), spec.choose_ladder(groups[0].profile, models).ladder
    prompt_of = list(range(num)) if prompts is None else list(islice(cycle(prompts.of_line), num))

    def make_neighbours() -> Neighbours:
        if prompts is None:
            return drawn_neighbours(ladder, num, seed)
        limits = StoreLimits(spec.cache.capacity_mebibytes << 20, spec.cache.ttl_seconds)
        skips = () if spec.cache.scope == "Off" else ladder.skips  # nothing is stored without a cache
        rules = CacheRules(limits, latent_bytes(spec.model), skips, prompts.own_repeats)
        return PromptCache(prompts.similarities, prompts.of_line, rules)

    scenario = Scenario(
        ladder=ladder,
        profile=groups[0].profile,
        groups=groups,
        target=ServiceTarget.of(spec),
        arrived_s=arrived_s,
        make_neighbours=make_neighbours,
        seed=seed,
        faults=faults,
        gateways=spec.gateway.replicas,
        other_sizes=other_sizes,
    )
    return Workload(scenario, prompt_of)


def drawn_neighbours(ladder: Ladder, num: int, seed: int) -> DrawnNeighbours:
    shares = lineage.shares()
    bands = [
        DrawnBand(max(band.lower, LOWEST_DRAWN), min(band.upper, 1.0), shares[band.skip]) for band in lineage.bands()
    ]
    return DrawnNeighbours(bands, ladder.skips, num, seed)
