"""Measuring twins for a profile: a prompt drawn from the latents of its twin, at every level that resumes from some.

The twin is drawn exactly and its latents stored; then the prompt is drawn exactly and from those latents, once a seed,
and judged by what it says itself.
"""

import itertools
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from t2i_policy.level import Ladder, Level
from t2i_profiler.judge import Sample
from t2i_profiler.measure import ProfileBench, ProfileTools, draw_all, draw_at
from t2i_profiler.sample_file import PromptScores, TwinScores
from t2i_profiler.twins import Twin, TwinKind, make_twins
from t2i_profiler.worker_client import Stored, WorkerClient, connect_workers, keep_as, start_from


@dataclass(frozen=True, slots=True)
class TwinPair:
    """A prompt to draw, from the latents of `twin` as it is drawn with `twin_seed`."""

    asked: Sample
    twin: Twin
    twin_seed: int


def pair_twins(asked: Sequence[Sample], count: int, seed: int, reads: Callable[[str], bool]) -> tuple[TwinPair, ...]:
    """Up to `count` pairs, the kinds as even as the prompts allow; the embedder reads every twin whole."""
    rng = np.random.default_rng(seed)
    waiting: dict[str, list[tuple[Sample, Twin]]] = {kind: [] for kind in reversed(TwinKind)}
    for sample in asked:
        for twin in make_twins(sample.prompt, rng):
            waiting[twin.kind].insert(0, (sample, twin))
    pairs: dict[str, TwinPair] = {}
    while any(waiting.values()) and len(pairs) < count:
        for left in waiting.values():
            while left and len(pairs) < count:
                sample, twin = left.pop()
                if sample.prompt not in pairs and reads(twin.prompt):
                    pairs[sample.prompt] = TwinPair(sample, twin, int(rng.integers(1 << 31)))
                    break
    return tuple(pairs.values())


async def measure_twins(
    addresses: Sequence[str],
    pairs: Sequence[TwinPair],
    ladder: Ladder,
    tools: ProfileTools,
    num_seeds: int,
) -> tuple[TwinScores, ...]:
    """Score every pair at the ladder's levels that need a latent."""
    if not pairs or not ladder.skips:
        return ()
    async with connect_workers(addresses) as workers:
        bench = ProfileBench(workers, ladder, tools, f"twins-{secrets.token_hex(8)}", num_seeds)
        turns = itertools.cycle(workers)
        keeping = [_keep_twin(bench, next(turns), pair, _entry(at)) for at, pair in enumerate(pairs)]
        await draw_all(bench, "drawing twins", keeping)
        scoring = [_score_pair(bench, next(turns), pair, _entry(at)) for at, pair in enumerate(pairs)]
        return tuple(await draw_all(bench, "drawing from twins", scoring))


def _entry(index: int) -> str:
    return f"twin-{index}"


async def _keep_twin(bench: ProfileBench, worker: WorkerClient, pair: TwinPair, entry: str) -> None:
    order = worker.order(pair.twin.prompt, pair.twin_seed, bench.ladder.exact)
    vector = bench.tools.embedder.embed_now(pair.twin.prompt).vector
    await worker.draw(keep_as(order, Stored(bench.scope, entry), vector))


async def _score_pair(bench: ProfileBench, worker: WorkerClient, pair: TwinPair, entry: str) -> TwinScores:
    sample, stored = pair.asked, Stored(bench.scope, entry)
    exact: list[float] = []
    by_level: dict[Level, list[float]] = {level: [] for level in bench.ladder.levels if level.needs_latent}
    for seed in range(sample.seed, sample.seed + bench.num_seeds):
        image = (await worker.draw(worker.order(sample.prompt, seed, bench.ladder.exact))).data
        exact.append(bench.tools.judge.score(image, image, sample))
        for level, scores in by_level.items():
            order = start_from(worker.order(sample.prompt, seed, level), stored)
            scores.append(bench.tools.judge.score((await draw_at(worker, order, level)).data, image, sample))
    one, other = (bench.tools.embedder.embed_now(prompt).vector for prompt in (sample.prompt, pair.twin.prompt))
    scores_of = {level: tuple(found) for level, found in by_level.items()}
    found = PromptScores(sample.prompt, pair.twin.prompt, float(np.dot(one, other)), tuple(exact), scores_of)
    return TwinScores(pair.twin.kind, found)
