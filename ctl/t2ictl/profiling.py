"""Measuring for a profile: from the command's options to what was measured, on running workers or a pool of its own."""

import hashlib
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from t2i_api.pool import PoolSpec
from t2i_policy.level import Ladder, build_ladder, parse_level, render_level
from t2i_policy.model_section import ModelSection
from t2i_policy.profile import VariantLosses
from t2i_profiler.candidates import candidate_levels, find_refused
from t2i_profiler.journal import Journal
from t2i_profiler.judges.catalogue import open_judge
from t2i_profiler.judges.judge import Judge
from t2i_profiler.measure import Asking, ProfileTools, measure, measure_variant
from t2i_profiler.measure_twins import TwinPair, measure_twins, pair_twins
from t2i_profiler.sample_file import Measurement
from t2i_profiler.samples import Samples, file_samples, only_read, scene_samples, with_scenes
from t2i_profiler.search import check_budget, search_steps
from t2i_profiler.worker_client import IN_CLEAR, OpenChannel, Variant, holding_own_model
from t2i_sources import builtin_folder
from t2i_sources.embedder import Embedder, EmbedderError, load_embedder
from t2ictl.errors import InputInvalid
from t2ictl.local_pool import MODELS_DIR, LocalOptions, LocalPool, check_model, read_pool

COLUMNS = (
    TextColumn("{task.description:24}"),
    BarColumn(),
    MofNCompleteColumn(),
    TimeElapsedColumn(),
    TextColumn("left"),
    TimeRemainingColumn(),
)


@dataclass(frozen=True, slots=True)
class ProfileTarget:
    """The pool to measure. `addresses` of running workers, and how they are called; none = start the file's own."""

    spec: PoolSpec
    pool_file: Path | None
    addresses: Sequence[str] = ()
    open_channel: OpenChannel = IN_CLEAR

    @classmethod
    def of_file(cls, path: Path, workers: str) -> Self:
        """Raises:
        InputInvalid: the file cannot be read, is no pool, or names a model that is not there.
        """
        pool = read_pool(path)
        if not workers:
            check_model(pool, MODELS_DIR)
        return cls(pool.spec, path, tuple(filter(None, workers.split(","))))


@dataclass(frozen=True, slots=True)
class ProfilePlan:
    """What to measure there: the command's options. `yields`: running workers serve others, who come first."""

    prompts: Path | None
    embedder: Path | None
    judges: Sequence[str]
    num_kept: int
    num_asked: int
    seed: int
    asking: Asking
    journal: Path
    num_twins: int = 0
    budgets: tuple[int, ...] = ()
    yields: bool = False
    judge_device: str = ""
    num_variant_prompts: int = 0


@dataclass(frozen=True, slots=True)
class Measured:
    """Of each judge, in the order of the options; and the journal, which has the pictures. `models`: other ones, set
    against this one."""

    by_judge: tuple[Measurement, ...]
    journal: Journal
    variants: tuple[VariantLosses, ...] = ()
    models: tuple[ModelSection, ...] = ()


async def collect(console: Console, plan: ProfilePlan, target: ProfileTarget) -> Measured:
    """Draw and score what the journal has not yet.

    Raises:
        InputInvalid: an option is missing or cannot be used.
    """
    for budget in plan.budgets:
        check_budget(budget, target.spec.base_steps)
    named = judges_of(plan.judges, target.spec, plan.prompts)
    embedder = _embedder_of(plan, target.spec)

    def reads(prompt: str) -> bool:
        return embedder.embed_now(prompt).unread is None

    samples = only_read(_samples_of(plan), reads)
    if "scenes" in named:
        samples = with_scenes(samples)
    pairs = pair_twins(samples.asked, plan.num_twins, plan.seed, reads)
    async with AsyncExitStack() as stack:
        judges = [await _opened(stack, text, plan) for text in named]
        about = _about(plan, target.spec, samples, embedder, judges)
        journal = Journal.open(plan.journal, {**about, "twins": _digest_twins(pairs)})
        if journal.begun:
            console.print(f"going on with what {plan.journal} has already")
        with Progress(*COLUMNS, console=console) as bar:
            yields = plan.yields and bool(target.addresses)
            tools = ProfileTools(embedder, judges, bar, journal, yields, target.open_channel)
            addresses = await stack.enter_async_context(_workers_of(target, bar))
            ladder = _kept_levels(journal, target.spec)
            if ladder is None:
                ladder = await _known_levels(console, target, addresses, yields)
                for budget in plan.budgets:
                    best = await search_steps(addresses, samples.kept, ladder.exact, tools, budget)
                    console.print(best.sentence)
                    ladder = build_ladder(ladder.base_steps, {*ladder.levels, best.level, best.even})
                journal.keep("levels", [render_level(one) for one in ladder.levels])
            found = await measure(addresses, samples, ladder, tools, plan.asking)
            twins = await measure_twins(addresses, pairs, ladder, tools, plan.asking)
            fewer = Samples(samples.kept, samples.asked[: plan.num_variant_prompts])
            variants = [
                await measure_variant(addresses, fewer, ladder, tools, Asking(1, variant=one))
                for one in (variants_of(target.spec) if fewer.asked else ())
            ]
    by_judge = tuple(replace(one, twins=own) for one, own in zip(found, twins, strict=True))
    return Measured(by_judge, journal, tuple(variants))


def variants_of(spec: PoolSpec) -> list[Variant]:
    """The pool's other sizes, of a range its ends, and its adapters."""
    ends = [size for part in spec.model.sizes for size in (part.smallest, part.largest)]
    sizes = [size for size in dict.fromkeys(ends) if size != spec.model.default_size]
    return [*(Variant(*size) for size in sizes), *(Variant(adapter=one.name) for one in spec.model.adapters)]


def _embedder_of(plan: ProfilePlan, spec: PoolSpec) -> Embedder:
    source = str(plan.embedder or spec.model.embedder_source)
    if not source:
        raise InputInvalid("similarities come from an embedder: set model.embedder in the pool, or give --embedder")
    try:
        return load_embedder(source, MODELS_DIR)
    except EmbedderError as error:
        raise InputInvalid(str(error)) from error


def _samples_of(plan: ProfilePlan) -> Samples:
    if plan.prompts is None:
        return scene_samples(plan.num_kept, plan.num_asked, plan.seed)
    return file_samples(plan.prompts, plan.num_kept, plan.num_asked, plan.seed)


def judges_of(named: Sequence[str], spec: PoolSpec, prompts: Path | None) -> tuple[str, ...]:
    """Those of the options; the exact scorer for captions of the scenes model.

    Raises:
        InputInvalid: nobody can say what an image of this model is worth.
    """
    if builtin_folder(spec.model.source) is None and prompts is None:
        raise InputInvalid("--prompts is needed: only the scenes model brings its own captions")
    if named:
        return tuple(named)
    if prompts is None:
        return ("scenes",)
    raise InputInvalid(
        "--judge is needed, nobody else can tell what an image is worth: --judge pickscore (preference), --judge lpips "
        "(closeness to the exact image), a judge of your own, or several of them; docs/judges.md compares them"
    )


async def _opened(stack: AsyncExitStack, text: str, plan: ProfilePlan) -> Judge:
    judge = await open_judge(text, MODELS_DIR, plan.judge_device)
    stack.push_async_callback(judge.close)
    return judge


def _about(
    plan: ProfilePlan, spec: PoolSpec, samples: Samples, embedder: Embedder, judges: Sequence[Judge]
) -> dict[str, object]:
    """What must be the same for a measurement to go on with."""
    return {
        "model": _digest(spec.model.model_dump(mode="json")),
        "levels": _digest([[part.model_dump(mode="json") for part in spec.levels], plan.budgets]),
        "prompts": _digest([(one.prompt, one.seed) for one in (*samples.kept, *samples.asked)]),
        "seeds": plan.asking.num_seeds,
        "embedder": embedder.digest,
        "judges": [f"{one.card.kind} {one.card.digest}" for one in judges],
    }


def _digest_twins(pairs: Sequence[TwinPair]) -> str:
    return _digest([(one.asked.prompt, one.twin.prompt, one.twin_seed) for one in pairs])


def _digest(value: object) -> str:
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=16).hexdigest()


@asynccontextmanager
async def _workers_of(target: ProfileTarget, bar: Progress) -> AsyncIterator[Sequence[str]]:
    """The addresses of those that hold the pool's own model, for the time of the block."""
    if target.addresses:
        yield await _own(target.addresses, target.open_channel)
        return
    if target.pool_file is None:
        raise InputInvalid("the pool has no workers to measure on")
    starting = bar.add_task("starting workers", total=1)
    async with LocalPool(LocalOptions(target.pool_file), with_gateway=False) as local:
        bar.update(starting, completed=1)
        yield await _own([worker.address for worker in local.workers], target.open_channel)


async def _own(addresses: Sequence[str], open_channel: OpenChannel) -> Sequence[str]:
    own = await holding_own_model(addresses, open_channel)
    if not own:
        raise InputInvalid("no worker holds the pool's own model: measure another model in a pool of its own")
    return own


def _kept_levels(journal: Journal, spec: PoolSpec) -> Ladder | None:
    found = journal.found("levels")
    return None if found is None else build_ladder(spec.base_steps, [parse_level(one) for one in found])


async def _known_levels(console: Console, target: ProfileTarget, addresses: Sequence[str], yields: bool) -> Ladder:
    """Those of the pool; where it names none, all that may be worth it and that the model draws at."""
    spec = target.spec
    if spec.levels:
        return build_ladder(spec.base_steps, [one for one in spec.ladder.levels if not one.model])
    candidates = candidate_levels(spec.base_steps)
    refused = await find_refused(addresses, candidates, yields, target.open_channel)
    for one in refused:
        console.print(f"not measured: {one.level.phrase}: {one.reason}")
    return build_ladder(spec.base_steps, {*candidates} - {one.level for one in refused})
