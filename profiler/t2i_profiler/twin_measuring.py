"""Drawing twins for a profile: a prompt from the latents of its twin, at every level that resumes from some.

The twin is drawn exactly and its latents stored; then the prompt is drawn exactly and from those latents, once a seed,
and judged by what it says itself.
"""

import itertools
import secrets
from collections.abc import Sequence

import numpy as np
from rich.progress import Progress

from t2i_policy.level import Ladder, Level
from t2i_profiler.judge import Judge
from t2i_profiler.measure import ProfileBench, draw_all, draw_at
from t2i_profiler.sample_file import PromptScores, TwinScores
from t2i_profiler.twin_samples import TwinPair
from t2i_profiler.worker_client import Stored, WorkerClient, connect_workers, keep_at, start_from
from t2i_sources.embedder import Embedder


async def measure_twins(
    addresses: Sequence[str],
    pairs: Sequence[TwinPair],
    ladder: Ladder,
    tools: tuple[Embedder, Judge, Progress],
    num_seeds: int,
) -> tuple[TwinScores, ...]:
    """Score every pair at the ladder's levels that need a latent."""
    if not pairs or not ladder.steps_to_keep:
        return ()
    embedder, judge, bar = tools
    async with connect_workers(addresses) as workers:
        bench = ProfileBench(workers, ladder, embedder, judge, f"twins-{secrets.token_hex(8)}", num_seeds, bar)
        turns = itertools.cycle(workers)
        keeping = [_keep_twin(bench, next(turns), pair, _entry(at)) for at, pair in enumerate(pairs)]
        await draw_all(bench, "drawing twins", keeping)
        scoring = [_score_pair(bench, next(turns), pair, _entry(at)) for at, pair in enumerate(pairs)]
        return tuple(await draw_all(bench, "drawing from twins", scoring))


def _entry(index: int) -> str:
    return f"twin-{index}"


async def _keep_twin(bench: ProfileBench, worker: WorkerClient, pair: TwinPair, entry: str) -> None:
    order = worker.order(pair.twin.prompt, pair.twin_seed, bench.ladder.exact)
    vector = bench.embedder.embed_now(pair.twin.prompt).vector
    await worker.draw(keep_at(order, bench.scope, entry, bench.ladder.steps_to_keep, vector))


async def _score_pair(bench: ProfileBench, worker: WorkerClient, pair: TwinPair, entry: str) -> TwinScores:
    sample, stored = pair.asked, Stored(bench.scope, entry, pair.twin_seed)
    exact: list[float] = []
    by_level: dict[Level, list[float]] = {level: [] for level in bench.ladder.levels if level.needs_latent}
    for seed in range(sample.seed, sample.seed + bench.num_seeds):
        image = (await worker.draw(worker.order(sample.prompt, seed, bench.ladder.exact))).data
        exact.append(bench.judge.score(image, image, sample))
        for level, scores in by_level.items():
            order = start_from(worker.order(sample.prompt, seed, level), stored, level.skipped_steps)
            scores.append(bench.judge.score((await draw_at(worker, order, level)).data, image, sample))
    one, other = (bench.embedder.embed_now(prompt).vector for prompt in (sample.prompt, pair.twin.prompt))
    scores_of = {level: tuple(found) for level, found in by_level.items()}
    found = PromptScores(sample.prompt, pair.twin.prompt, float(np.dot(one, other)), tuple(exact), scores_of)
    return TwinScores(pair.twin.kind, found)
