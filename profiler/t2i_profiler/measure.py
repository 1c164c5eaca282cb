"""Drawing for a profile: what every level costs and how its images score, on running workers.

Asked prompts are drawn exactly and at every level, from the nearest kept prompt, once a seed: all seeds from the same
latents, as requests of one prompt are served. So how much the images of different seeds differ is measured too. Of the
kept prompts those are drawn that some asked one is nearest to; a prompt and those that start from it share a worker.
Step times come from runs at every batch size, or, where workers serve others as well, from what they report.

Everything that is done is kept in the journal first, and read from there: a measurement that was interrupted ends with
the same numbers as one that was not.
"""

import asyncio
import secrets
import statistics
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from rich.progress import Progress

from t2i_policy.image_size import ImageSize, SizeCost
from t2i_policy.level import Ladder, Level
from t2i_policy.profile import LevelCost, VariantLosses
from t2i_policy.profile_document import parse_costs, render_costs
from t2i_profiler.bands import band_losses, prompts_needed
from t2i_profiler.errors import SamplesInvalid
from t2i_profiler.images import Sample, image_distance, spread
from t2i_profiler.journal import Journal
from t2i_profiler.judges.judge import Judge, JudgedImage, qualities
from t2i_profiler.sample_file import Facts, Measurement, PromptScores, prompt_line, read_prompt
from t2i_profiler.samples import Samples
from t2i_profiler.worker_client import (
    IN_CLEAR,
    PLAIN,
    DrawnImage,
    OpenChannel,
    Stored,
    Variant,
    WorkerClient,
    connect_workers,
    keep_as,
    start_from,
)
from t2i_protos.v1 import worker_pb2
from t2i_sources.embedder import Embedder

T = TypeVar("T")
Matrix = npt.NDArray[np.float32]
TIMING_ROUNDS = 3
FETCH_TRIES = 5
PILOT_PROMPTS = 16  # from which is guessed how many a standard error takes


@dataclass(frozen=True, slots=True)
class ProfileTools:
    """What tells similarities, who judges, what is kept of it, and where progress is shown.

    `yields`: the workers serve others too, and measuring gives way to them. `open_channel`: how they are called.
    """

    embedder: Embedder
    judges: Sequence[Judge]
    bar: Progress
    journal: Journal = field(default_factory=Journal)
    yields: bool = False
    open_channel: OpenChannel = IN_CLEAR
    distance: Callable[[bytes, bytes], float] = image_distance
    scoring: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(frozen=True, slots=True)
class Asking:
    """How much is measured. `standard_error`: stop as soon as no level's mean loss has a larger one; 0 = ask all."""

    num_seeds: int
    standard_error: float = 0.0
    variant: Variant = PLAIN


@dataclass(frozen=True, slots=True)
class ProfileBench:
    """What measuring works with. `scope` is fresh, so that no tenant ever meets these latents."""

    workers: Sequence[WorkerClient]
    ladder: Ladder
    tools: ProfileTools
    scope: str
    asking: Asking
    stored: set[int] = field(default_factory=set)  # kept prompts whose latents lie in the store

    def key(self, name: str) -> str:
        """In the journal."""
        return name if self.asking.variant == PLAIN else f"{name}-{self.asking.variant.phrase}"

    def order(self, worker: WorkerClient, sample: Sample, seed: int, level: Level) -> worker_pb2.WorkerGenerateRequest:
        """Of this variant."""
        return worker.order(sample.prompt, seed, level, self.asking.variant)


async def measure(
    addresses: Sequence[str], samples: Samples, ladder: Ladder, tools: ProfileTools, asking: Asking
) -> tuple[Measurement, ...]:
    """Time every level of the ladder on these workers, and score it: a measurement for each judge."""
    async with connect_workers(addresses, tools.yields, tools.open_channel) as workers:
        bench = ProfileBench(workers, ladder, tools, f"profile-{secrets.token_hex(8)}", asking)
        _check_model(bench)
        steps = await _once(bench, "steps", _time_steps)
        costs = await _once(bench, "costs", _time_levels)
        found = await _score_levels(bench, samples)
        about = workers[0].description
        sizes = tuple(SizeCost(ImageSize(one.width, one.height), one.step_cost) for one in about.sizes)
        return tuple(
            Measurement(
                Facts(
                    model_digest=about.model_digest,
                    device=about.device,
                    base_steps=ladder.base_steps,
                    step_s=tuple(steps["stepSeconds"]),
                    fixed_s=steps["fixedSeconds"],
                    judge=judge.card.record,
                    embedder_digest=tools.embedder.digest,
                    sizes=sizes,
                    costs=parse_costs(costs),
                    measured_with=workers[0].drawn_with,
                ),
                tuple(prompts),
            )
            for judge, prompts in zip(tools.judges, found, strict=True)
        )


async def measure_variant(
    addresses: Sequence[str], samples: Samples, ladder: Ladder, tools: ProfileTools, asking: Asking
) -> VariantLosses:
    """What levels lose at another size or with an adapter, by the first judge. Latents are of the variant as well."""
    async with connect_workers(addresses, tools.yields, tools.open_channel) as workers:
        bench = ProfileBench(workers, ladder, tools, f"profile-{secrets.token_hex(8)}", asking)
        prompts = (await _score_levels(bench, samples))[0]
    levels = [level for level in ladder.levels if level != ladder.exact]
    bands = band_losses([one.scored() for one in prompts], levels)
    if tools.judges[0].card.compares:
        bands = tuple(replace(band, win_rate=None) for band in bands)
    variant = asking.variant
    return VariantLosses(variant.width, variant.height, variant.adapter, bands)


def _check_model(bench: ProfileBench) -> None:
    """Raises:
    SamplesInvalid: what the journal has was measured on another model or device.
    """
    about, journal = bench.workers[0].description, bench.tools.journal
    now = f"{about.model_digest} on {about.device}"
    before = journal.found(bench.key("model")) or journal.keep(bench.key("model"), now)
    if before != now:
        raise SamplesInvalid(
            f"the unfinished profile was begun with model {before}, the workers have {now}: give another --out, or "
            "remove the journal's folder"
        )


async def _once(bench: ProfileBench, name: str, timed: Callable[[ProfileBench], Coroutine[Any, Any, Any]]) -> Any:
    """What the journal has of it, else what is timed now."""
    found = bench.tools.journal.found(bench.key(name))
    return found if found is not None else bench.tools.journal.keep(bench.key(name), await timed(bench))


async def _time_steps(bench: ProfileBench) -> Mapping[str, Any]:
    """Seconds of a step at every batch size of the first worker, all other workers idle; and the fixed rest."""
    worker, exact = bench.workers[0], bench.ladder.exact
    if worker.yields:  # what it measured at its start and keeps current
        step_s = [one / 1e3 for one in worker.load.step_ms]
        return {"stepSeconds": step_s, "fixedSeconds": worker.load.fixed_ms / 1e3}
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
    return {"stepSeconds": step_s, "fixedSeconds": statistics.median(fixed_ms) / 1e3}


async def _time_levels(bench: ProfileBench) -> list[dict[str, Any]]:
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
    return render_costs([LevelCost(level, statistics.median(took_ms[level]) / max(1e-9, step_ms)) for level in others])


@dataclass(frozen=True, slots=True)
class _Near:
    """An asked prompt by its number, and the kept one that it is nearest to."""

    number: int
    nearest: int
    similarity: float


async def _score_levels(bench: ProfileBench, samples: Samples) -> list[list[PromptScores]]:
    """Scores of the asked prompts in their order, for each judge."""
    near = _nearest(bench.tools.embedder, samples)
    wanted, done = len(near), 0
    by_judge: list[list[PromptScores]] = [[] for _ in bench.tools.judges]
    upto = min(PILOT_PROMPTS, wanted) if bench.asking.standard_error else wanted
    while done < upto:
        for_all = await _score_part(bench, samples, near[done:upto])
        for found in for_all:
            for prompts, one in zip(by_judge, found, strict=True):
                prompts.append(one)
        done, upto = upto, min(wanted, max(upto, _needed(bench, by_judge)))
    return by_judge


def _needed(bench: ProfileBench, by_judge: Sequence[Sequence[PromptScores]]) -> int:
    if not bench.asking.standard_error:
        return 0
    scored = [[one.scored() for one in prompts] for prompts in by_judge]
    return max(prompts_needed(prompts, bench.asking.standard_error) for prompts in scored)


def _nearest(embedder: Embedder, samples: Samples) -> list[_Near]:
    matrix: Matrix = np.stack([embedder.embed_now(sample.prompt).vector for sample in samples.kept])
    found = []
    for number, sample in enumerate(samples.asked):
        similarities = matrix @ embedder.embed_now(sample.prompt).vector
        nearest = int(similarities.argmax())
        found.append(_Near(number, nearest, float(similarities[nearest])))
    return found


async def _score_part(bench: ProfileBench, samples: Samples, near: Sequence[_Near]) -> list[list[PromptScores]]:
    """Of these asked prompts, those that the journal has not are drawn."""
    left = [one for one in near if bench.tools.journal.found(bench.key(f"asked-{one.number}")) is None]
    kept = sorted({one.nearest for one in left} - bench.stored) if bench.ladder.skips else []
    bench.stored.update(kept)
    await draw_all(bench, "drawing kept prompts", [partial(_keep, bench, samples.kept[one], one) for one in kept])
    await draw_all(bench, "drawing asked prompts", [partial(_score_one, bench, samples, one) for one in left])
    lines = [bench.tools.journal.found(bench.key(f"asked-{one.number}")) for one in near]
    return [[read_prompt(line) for line in found] for found in lines]


def _worker(bench: ProfileBench, nearest: int) -> WorkerClient:
    """The same for a kept prompt and all that start from it: workers may have stores of their own."""
    return bench.workers[nearest % len(bench.workers)]


async def _keep(bench: ProfileBench, sample: Sample, index: int) -> None:
    worker, vector = _worker(bench, index), bench.tools.embedder.embed_now(sample.prompt).vector
    order = bench.order(worker, sample, sample.seed, bench.ladder.exact)
    await worker.draw(keep_as(order, Stored(bench.scope, f"kept-{index}"), vector))


async def _score_one(bench: ProfileBench, samples: Samples, near: _Near) -> None:
    """The sample at every level, once a seed, from the final latent of its nearest prompt; into the journal."""
    sample, worker = samples.asked[near.number], _worker(bench, near.nearest)
    levels = [level for level in bench.ladder.levels if level != bench.ladder.exact]
    drawn = await draw_levels(bench, worker, sample, levels, Stored(bench.scope, f"kept-{near.nearest}"))
    for at, images in enumerate(drawn.values()):
        bench.tools.journal.keep_picture(bench.key(f"asked-{near.number}-{at}"), images[0])
    scores = await judge_levels(bench.tools, sample, drawn, bench.ladder.exact)
    distance, exact = bench.tools.distance, drawn[bench.ladder.exact]
    several = bench.asking.num_seeds > 1
    spreads = {level: spread(drawn[level], distance) for level in levels} if several else {}
    lines = [
        prompt_line(
            PromptScores(
                prompt=sample.prompt,
                nearest=samples.kept[near.nearest].prompt,
                similarity=near.similarity,
                exact=one.pop(bench.ladder.exact),
                by_level=one,
                exact_spread=spread(exact, distance),
                spreads=spreads,
            )
        )
        for one in scores
    ]
    bench.tools.journal.keep(bench.key(f"asked-{near.number}"), lines)


async def draw_levels(
    bench: ProfileBench, worker: WorkerClient, sample: Sample, levels: Sequence[Level], source: Stored
) -> dict[Level, list[bytes]]:
    """Images of the exact level and of these, once a seed, in order of the seeds."""
    images: dict[Level, list[bytes]] = {level: [] for level in (bench.ladder.exact, *levels)}
    for seed in range(sample.seed, sample.seed + bench.asking.num_seeds):
        for level, drawn in images.items():
            order = bench.order(worker, sample, seed, level)
            if level.needs_latent:
                start_from(order, source)
            drawn.append((await draw_at(worker, order, level)).data)
    return images


async def judge_levels(
    tools: ProfileTools, sample: Sample, drawn: Mapping[Level, Sequence[bytes]], exact: Level
) -> list[dict[Level, tuple[float, ...]]]:
    """Qualities of drawn images, once a seed, for each judge. Judges are asked one after the other."""
    images = [
        JudgedImage(one, whole, sample)
        for of_level in drawn.values()
        for one, whole in zip(of_level, drawn[exact], strict=True)
    ]
    found = []
    async with tools.scoring:
        for judge in tools.judges:
            scores = iter(await qualities(judge, images))
            found.append({level: tuple(next(scores) for _ in of_level) for level, of_level in drawn.items()})
    return found


async def draw_at(worker: WorkerClient, order: worker_pb2.WorkerGenerateRequest, level: Level) -> DrawnImage:
    """Draw at this level or not at all: where a latent came late, the worker starts from noise, and is asked again."""
    for _ in range(FETCH_TRIES):
        drawn = await worker.draw(order)
        if drawn.finished.served.skipped_steps == level.skipped_steps:
            return drawn
    raise SamplesInvalid(
        f"a worker could not read a latent that was just stored, {FETCH_TRIES} times; has the pool a store "
        "(cache.storeURL), and is the machine idle?"
    )


async def draw_all(bench: ProfileBench, title: str, work: Sequence[Callable[[], Coroutine[Any, Any, T]]]) -> list[T]:
    """All results in order, counted on the bar. As many at a time as fill the workers: each soon ends and is kept."""
    task = bench.tools.bar.add_task(title, total=len(work))
    places = asyncio.Semaphore(sum(worker.num_slots for worker in bench.workers) + 1)  # one may be with the judges

    async def counted(one: Callable[[], Coroutine[Any, Any, T]]) -> T:
        async with places:
            result = await one()
        bench.tools.bar.advance(task)
        return result

    return await all_of([counted(one) for one in work])


async def all_of(work: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """All results in order; the first failure ends the others, and is what is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in work]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from failed
    return [one.result() for one in tasks]
