"""Drawing for a profile: what every level costs and how its images score, on running workers.

Kept prompts are drawn exactly and their latents stored; asked prompts are drawn exactly and at every level, from the
nearest kept prompt, once a seed: all seeds from the same latents, as requests of one prompt are served. So how much the
images of different seeds differ is measured too. Step times come from runs at every batch size.
"""

import asyncio
import itertools
import secrets
import statistics
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from rich.progress import Progress

from t2i_policy.image_size import ImageSize, SizeCost
from t2i_policy.level import Ladder, Level
from t2i_policy.profile import LevelCost
from t2i_profiler.errors import SamplesInvalid
from t2i_profiler.judge import Judge, Sample, spread
from t2i_profiler.sample_file import Facts, Measurement, PromptScores
from t2i_profiler.samples import Samples
from t2i_profiler.worker_client import DrawnImage, Stored, WorkerClient, connect_workers, keep_as, start_from
from t2i_protos.v1 import worker_pb2
from t2i_sources.embedder import Embedder

T = TypeVar("T")
Matrix = npt.NDArray[np.float32]
TIMING_ROUNDS = 3
FETCH_TRIES = 5


@dataclass(frozen=True, slots=True)
class ProfileTools:
    """What tells similarities, what judges images, and where progress is shown."""

    embedder: Embedder
    judge: Judge
    bar: Progress


@dataclass(frozen=True, slots=True)
class ProfileBench:
    """What measuring works with. `scope` is fresh, so that no tenant ever meets these latents."""

    workers: Sequence[WorkerClient]
    ladder: Ladder
    tools: ProfileTools
    scope: str
    num_seeds: int


async def measure(
    addresses: Sequence[str], samples: Samples, ladder: Ladder, tools: ProfileTools, num_seeds: int
) -> Measurement:
    """Time and score every level of the ladder on these workers."""
    async with connect_workers(addresses) as workers:
        bench = ProfileBench(workers, ladder, tools, f"profile-{secrets.token_hex(8)}", num_seeds)
        step_s, fixed_s = await _time_steps(bench)
        costs = await _time_levels(bench)
        prompts = await _score_levels(bench, samples)
        about = workers[0].description
        base_steps = ladder.base_steps
        judge, embedder = tools.judge.name, tools.embedder.digest
        sizes = tuple(SizeCost(ImageSize(one.width, one.height), one.step_cost) for one in about.sizes)
        facts = Facts(about.model_digest, about.device, base_steps, step_s, fixed_s, judge, embedder, sizes, costs)
        return Measurement(facts, tuple(prompts))


async def _time_steps(bench: ProfileBench) -> tuple[tuple[float, ...], float]:
    """Seconds of a step at every batch size of the first worker, all other workers idle; and the fixed rest."""
    worker, exact = bench.workers[0], bench.ladder.exact
    cap = max(1, worker.load.batch_cap)
    task = bench.tools.bar.add_task("timing batch sizes", total=cap)
    step_s, fixed_ms = [], []
    for size in range(1, cap + 1):
        times = []
        for _ in range(TIMING_ROUNDS):
            drawn = await asyncio.gather(*(worker.draw(worker.order("timing", n, exact)) for n in range(size)))
            times.append(max(one.finished.denoise_ms for one in drawn) / 1e3 / exact.steps_run)
            fixed_ms += [one.finished.encode_ms for one in drawn]
        step_s.append(statistics.median(times))
        bench.tools.bar.advance(task)
    return tuple(step_s), statistics.median(fixed_ms) / 1e3


async def _time_levels(bench: ProfileBench) -> tuple[LevelCost, ...]:
    """What levels without a latent cost alone on the first worker, in steps of exact images between them."""
    worker, exact = bench.workers[0], bench.ladder.exact
    levels = [level for level in bench.ladder.levels if not level.needs_latent]
    task = bench.tools.bar.add_task("timing levels", total=TIMING_ROUNDS)
    took_ms: dict[Level, list[float]] = {level: [] for level in levels}
    for number in range(TIMING_ROUNDS):
        for level in levels:
            drawn = await worker.draw(worker.order("timing", number, level))
            took_ms[level].append(drawn.finished.denoise_ms)
        bench.tools.bar.advance(task)
    step_ms = statistics.median(took_ms[exact]) / exact.steps_run
    others = [level for level in levels if level != exact]
    return tuple(LevelCost(level, statistics.median(took_ms[level]) / max(1e-9, step_ms)) for level in others)


async def _score_levels(bench: ProfileBench, samples: Samples) -> list[PromptScores]:
    embedded = [bench.tools.embedder.embed_now(sample.prompt).vector for sample in samples.kept]
    turns = itertools.cycle(bench.workers)
    keeping = []
    for index, (sample, vector) in enumerate(zip(samples.kept, embedded, strict=True)):
        worker = next(turns)
        order = worker.order(sample.prompt, sample.seed, bench.ladder.exact)
        keeping.append(worker.draw(keep_as(order, Stored(bench.scope, _entry(index)), vector)))
    await draw_all(bench, "drawing kept prompts", keeping)
    matrix = np.stack(embedded)
    return await draw_all(
        bench,
        "drawing asked prompts",
        [_score_one(bench, next(turns), sample, samples.kept, matrix) for sample in samples.asked],
    )


def _entry(index: int) -> str:
    return f"kept-{index}"


async def _score_one(
    bench: ProfileBench, worker: WorkerClient, sample: Sample, kept: Sequence[Sample], embedded: Matrix
) -> PromptScores:
    """The sample at every level, once a seed, from the final latent of its nearest prompt."""
    similarities = embedded @ bench.tools.embedder.embed_now(sample.prompt).vector
    nearest = int(similarities.argmax())
    source = Stored(bench.scope, _entry(nearest))
    exact: list[bytes] = []
    images: dict[Level, list[bytes]] = {level: [] for level in bench.ladder.levels if level != bench.ladder.exact}
    for turn in range(bench.num_seeds):
        seed = sample.seed + turn
        exact.append((await worker.draw(worker.order(sample.prompt, seed, bench.ladder.exact))).data)
        for level, drawn in images.items():
            order = worker.order(sample.prompt, seed, level)
            if level.needs_latent:
                start_from(order, source)
            drawn.append((await draw_at(worker, order, level)).data)
    judge, several = bench.tools.judge, bench.num_seeds > 1
    return PromptScores(
        prompt=sample.prompt,
        nearest=kept[nearest].prompt,
        similarity=float(similarities[nearest]),
        exact=tuple(judge.score(image, image, sample) for image in exact),
        by_level={
            level: tuple(judge.score(one, whole, sample) for one, whole in zip(drawn, exact, strict=True))
            for level, drawn in images.items()
        },
        exact_spread=spread(exact, judge.distance),
        spreads={level: spread(drawn, bench.tools.judge.distance) for level, drawn in images.items()}
        if several
        else {},
    )


async def draw_at(worker: WorkerClient, order: worker_pb2.WorkerGenerateRequest, level: Level) -> DrawnImage:
    """Draw at this level or not at all: where a latent came late, the worker starts from noise, and is asked again."""
    for _ in range(FETCH_TRIES):
        drawn = await worker.draw(order)
        if drawn.finished.served.skipped_steps == level.skipped_steps:
            return drawn
    raise SamplesInvalid(
        f"a worker could not read a latent that was just stored, {FETCH_TRIES} times; do all share one store, and is "
        "the machine idle?"
    )


async def draw_all(bench: ProfileBench, title: str, work: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """All results in order, counted on the bar."""
    task = bench.tools.bar.add_task(title, total=len(work))

    async def counted(one: Coroutine[Any, Any, T]) -> T:
        result = await one
        bench.tools.bar.advance(task)
        return result

    return await all_of([counted(one) for one in work])


async def all_of(work: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """All results in order; the first failure ends the others."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one) for one in work]
    return [one.result() for one in tasks]
