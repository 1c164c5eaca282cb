"""`t2ictl profile`: measure what every level costs and loses, on running workers.

Kept prompts are drawn exactly and their latents stored; asked prompts are drawn exactly and at every level, from the
nearest kept prompt. Losses are paired differences (`losses`); step times come from runs at every batch size.
"""

import asyncio
import itertools
import secrets
import statistics
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from t2i_gateway.embedding import Embedder, EmbedderError
from t2i_policy.levels import Ladder, Level
from t2i_policy.profile import LevelProfile, render_profile
from t2i_protos.v1 import worker_pb2
from t2ictl.errors import InputInvalid
from t2ictl.judging import FidelityJudge, Judge, Sample, SceneJudge
from t2ictl.local_pool import LocalOptions, LocalPool, builtin_folder, read_pool
from t2ictl.losses import Scored, band_losses
from t2ictl.samples import Samples, file_samples, scene_samples
from t2ictl.worker_client import Drawn, WorkerClient, connect_workers, keep_at, start_from

T = TypeVar("T")
TIMING_ROUNDS = 3
FETCH_TRIES = 5


@dataclass(frozen=True, slots=True)
class ProfilePlan:
    """The command's options."""

    pool_file: Path
    workers: str
    prompts: Path | None
    embedder: Path | None
    num_kept: int
    num_asked: int
    seed: int


@dataclass(frozen=True, slots=True)
class Bench:
    """What measuring works with. `scope` is fresh, so that no tenant ever meets these latents."""

    workers: Sequence[WorkerClient]
    ladder: Ladder
    embedder: Embedder
    judge: Judge
    scope: str
    bar: Progress


async def run_profile(console: Console, plan: ProfilePlan, out: Path) -> None:
    """Measure, write JSON and plot, print the table."""
    pool = read_pool(plan.pool_file)
    builtin = builtin_folder(pool)
    folder = plan.embedder or (builtin / "embedder" if builtin is not None else None)
    if folder is None:
        raise InputInvalid("--embedder is needed: similarities come from it")
    if builtin is None and plan.prompts is None:
        raise InputInvalid("--prompts is needed: only the scenes model brings its own captions")
    try:
        embedder = Embedder(folder)
    except EmbedderError as error:
        raise InputInvalid(str(error)) from error
    judge: Judge = SceneJudge() if plan.prompts is None else FidelityJudge()
    columns = (TextColumn("{task.description:24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as bar:
        if plan.workers:
            profile = await _measure(plan, plan.workers.split(","), pool.spec.ladder, embedder, judge, bar)
        else:
            starting = bar.add_task("starting workers", total=None)
            async with LocalPool(LocalOptions(plan.pool_file), with_gateway=False) as local:
                bar.update(starting, total=1, completed=1)
                addresses = [worker.address for worker in local.workers]
                profile = await _measure(plan, addresses, pool.spec.ladder, embedder, judge, bar)
    from t2ictl.plotting import plot_profile

    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(render_profile(profile))
    plot_profile(profile, judge.name, out.with_suffix(".png"))
    console.print(to_table(profile, judge.name))
    console.print(f"written: {out}, {out.with_suffix('.png')}")


async def _measure(
    plan: ProfilePlan, addresses: Sequence[str], ladder: Ladder, embedder: Embedder, judge: Judge, bar: Progress
) -> LevelProfile:
    if plan.prompts is None:
        samples = scene_samples(plan.num_kept, plan.num_asked, plan.seed)
    else:
        samples = file_samples(plan.prompts, plan.num_kept, plan.num_asked, plan.seed)
    async with connect_workers(addresses) as workers:
        bench = Bench(workers, ladder, embedder, judge, f"profile-{secrets.token_hex(8)}", bar)
        step_s, fixed_s = await _time_steps(bench)
        scored = await _score_levels(bench, samples)
        facts = workers[0].description
        levels = [level for level in ladder.levels if level != ladder.exact]
        losses = band_losses(scored, levels)
        return LevelProfile(facts.model_digest, facts.device, ladder.base_steps, step_s, fixed_s, losses)


async def _time_steps(bench: Bench) -> tuple[tuple[float, ...], float]:
    """Seconds of a step at every batch size of the first worker, all other workers idle; and the fixed rest."""
    worker, exact = bench.workers[0], bench.ladder.exact
    cap = max(1, worker.load.batch_cap)
    task = bench.bar.add_task("timing batch sizes", total=cap)
    step_s, fixed_ms = [], []
    for size in range(1, cap + 1):
        times = []
        for _ in range(TIMING_ROUNDS):
            drawn = await asyncio.gather(*(worker.draw(worker.order("timing", n, exact)) for n in range(size)))
            times.append(max(one.finished.denoise_ms for one in drawn) / 1e3 / exact.steps_run)
            fixed_ms += [one.finished.encode_ms for one in drawn]
        step_s.append(statistics.median(times))
        bench.bar.advance(task)
    return tuple(step_s), statistics.median(fixed_ms) / 1e3


async def _score_levels(bench: Bench, samples: Samples) -> list[Scored]:
    embedded = [bench.embedder.embed_now(sample.prompt) for sample in samples.kept]
    turns = itertools.cycle(bench.workers)
    steps = bench.ladder.steps_to_keep
    keeping = []
    for index, (sample, vector) in enumerate(zip(samples.kept, embedded, strict=True)):
        worker = next(turns)
        order = worker.order(sample.prompt, sample.seed, bench.ladder.exact)
        keeping.append(worker.draw(keep_at(order, bench.scope, f"kept-{index}", steps, vector)))
    await _all(bench, "drawing kept prompts", keeping)
    matrix = np.stack(embedded)
    return await _all(
        bench, "drawing asked prompts", [_score_one(bench, next(turns), sample, matrix) for sample in samples.asked]
    )


async def _score_one(bench: Bench, worker: WorkerClient, sample: Sample, kept: "np.ndarray[Any, Any]") -> Scored:
    similarities = kept @ bench.embedder.embed_now(sample.prompt)
    nearest = int(similarities.argmax())
    exact = await worker.draw(worker.order(sample.prompt, sample.seed, bench.ladder.exact))
    scores: dict[Level, float] = {}
    for level in bench.ladder.levels:
        if level != bench.ladder.exact:
            order = worker.order(sample.prompt, sample.seed, level)
            if level.needs_latent:
                start_from(order, bench.scope, f"kept-{nearest}", [level.skipped_steps])
            drawn = await _draw_at(worker, order, level)
            scores[level] = bench.judge.score(drawn.data, exact.data, sample)
    return Scored(float(similarities[nearest]), bench.judge.score(exact.data, exact.data, sample), scores)


async def _draw_at(worker: WorkerClient, order: worker_pb2.WorkerGenerateRequest, level: Level) -> Drawn:
    """Draw at this level or not at all: a latent that came late (the worker starts lower then) is asked for again."""
    for _ in range(FETCH_TRIES):
        drawn = await worker.draw(order)
        if drawn.finished.served.skipped_steps == level.skipped_steps:
            return drawn
    raise InputInvalid(
        f"a worker could not read a latent that was just stored, {FETCH_TRIES} times; do all share one store, and is "
        "the machine idle?"
    )


async def _all(bench: Bench, title: str, work: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    task = bench.bar.add_task(title, total=len(work))

    async def counted(one: Coroutine[Any, Any, T]) -> T:
        result = await one
        bench.bar.advance(task)
        return result

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(counted(one)) for one in work]
    return [one.result() for one in tasks]


def to_table(profile: LevelProfile, judge: str) -> Table:
    """Losses as people read them."""
    table = Table("level", "steps run", "similarity", "loss", "± s.e.", "samples", title=f"quality loss ({judge})")
    for band in profile.losses:
        high = min(band.similarity_max, 1.0)
        near = f"{band.similarity_min:.2f} to {high:.2f}" if band.level.needs_latent else "any"
        table.add_row(
            band.level.label(profile.base_steps),
            str(band.level.steps_run),
            near,
            f"{100 * band.mean_loss:.1f}%",
            f"{100 * band.standard_error:.1f}%",
            str(band.num_samples),
        )
    return table
