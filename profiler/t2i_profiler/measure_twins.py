"""Measuring twins for a profile: a prompt drawn from the latents of its twin, at every level that resumes from some.

The twin is drawn exactly and its latents stored; then the prompt is drawn exactly and from those latents, once a seed,
and judged by what it says itself.
"""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from t2i_policy.level import Ladder
from t2i_profiler.images import Sample
from t2i_profiler.measure import Asking, ProfileBench, ProfileTools, draw_all, draw_levels, judge_levels
from t2i_profiler.sample_file import PromptScores, TwinScores, prompt_line, read_prompt
from t2i_profiler.twins import Twin, TwinKind, make_twins
from t2i_profiler.worker_client import Stored, WorkerClient, connect_workers, keep_as


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
    addresses: Sequence[str], pairs: Sequence[TwinPair], ladder: Ladder, tools: ProfileTools, asking: Asking
) -> tuple[tuple[TwinScores, ...], ...]:
    """Score every pair at the ladder's levels that need a latent: for each judge, the scores of all pairs."""
    if not pairs or not ladder.skips:
        return tuple(() for _ in tools.judges)
    left = [at for at in range(len(pairs)) if tools.journal.found(_entry(at)) is None]
    async with connect_workers(addresses, tools.yields, tools.open_channel) as workers:
        bench = ProfileBench(workers, ladder, tools, f"twins-{secrets.token_hex(8)}", asking)
        placed = [(workers[at % len(workers)], pairs[at], _entry(at)) for at in left]
        await draw_all(bench, "drawing twins", [partial(_keep_twin, bench, *one) for one in placed])
        await draw_all(bench, "drawing from twins", [partial(_score_pair, bench, *one) for one in placed])
    found = [[read_prompt(line) for line in tools.journal.found(_entry(at))] for at in range(len(pairs))]
    kinds = [pair.twin.kind for pair in pairs]
    return tuple(
        tuple(TwinScores(kind, scores[judge]) for kind, scores in zip(kinds, found, strict=True))
        for judge in range(len(tools.judges))
    )


def _entry(index: int) -> str:
    return f"twin-{index}"


async def _keep_twin(bench: ProfileBench, worker: WorkerClient, pair: TwinPair, entry: str) -> None:
    order = worker.order(pair.twin.prompt, pair.twin_seed, bench.ladder.exact)
    vector = bench.tools.embedder.embed_now(pair.twin.prompt).vector
    await worker.draw(keep_as(order, Stored(bench.scope, entry), vector))


async def _score_pair(bench: ProfileBench, worker: WorkerClient, pair: TwinPair, entry: str) -> None:
    sample, levels = pair.asked, [level for level in bench.ladder.levels if level.needs_latent]
    drawn = await draw_levels(bench, worker, sample, levels, Stored(bench.scope, entry))
    one, other = (bench.tools.embedder.embed_now(prompt).vector for prompt in (sample.prompt, pair.twin.prompt))
    scores = await judge_levels(bench.tools, sample, drawn, bench.ladder.exact)
    lines = [
        prompt_line(PromptScores(sample.prompt, pair.twin.prompt, float(np.dot(one, other)), found.pop(exact), found))
        for found in scores
        for exact in (bench.ladder.exact,)
    ]
    bench.tools.journal.keep(entry, lines)
