"""`t2ictl profile`: measure what every level costs and loses, on running workers, and fit the profile to it.

Every measured prompt is kept in a samples file, so that a profile can be fitted anew without drawing again. The fit is
similarity bands (`bands`), bounded by what twins lost, and, with prompts enough, the learned predictor (`fit`), whose
precision is told on prompts that it did not see (`precision`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from t2i_api.pool import PoolSpec
from t2i_policy.level import Ladder, build_ladder
from t2i_policy.predictor import Predictor
from t2i_policy.profile import LevelProfile, render_profile
from t2i_policy.twin_loss import TwinLoss
from t2i_profiler.candidates import candidate_levels, find_refused
from t2i_profiler.fit import FOLDS, MIN_PROMPTS
from t2i_profiler.judge import FidelityJudge, Judge, SceneJudge
from t2i_profiler.measure import ProfileTools, measure
from t2i_profiler.measure_twins import measure_twins, pair_twins
from t2i_profiler.precision import cross_validated, precision_table, profile_of
from t2i_profiler.sample_file import Measurement, read_samples, write_samples
from t2i_profiler.samples import file_samples, only_read, scene_samples
from t2i_profiler.search import check_budget, search_steps
from t2i_sources import builtin_folder
from t2i_sources.embedder import EmbedderError, load_embedder
from t2ictl.errors import InputInvalid
from t2ictl.local_pool import MODELS_DIR, LocalOptions, LocalPool, check_model, read_pool
from t2ictl.options import DEFAULT_POOL, MAX_PROMPTS, EmbedderFolder, PoolFile, Seed
from t2ictl.running import console, run


def profile(
    out: Annotated[Path, typer.Option(help="profile JSON to write; a plot goes beside it")] = Path("profile.json"),
    pool: PoolFile = DEFAULT_POOL,
    workers: Annotated[str, typer.Option(help="addresses of running workers; default: start the pool's own")] = "",
    prompts: Annotated[
        Path | None, typer.Option(help="one prompt a line; default: captions of the scenes model")
    ] = None,
    embedder: EmbedderFolder = None,
    cached: Annotated[int, typer.Option(min=8, max=MAX_PROMPTS, help="prompts whose latents are kept")] = 200,
    asked: Annotated[int, typer.Option(min=8, max=MAX_PROMPTS, help="prompts measured against them")] = 240,
    seeds: Annotated[
        int, typer.Option(min=1, max=1000, help="images a prompt and level; 1 = how much seeds differ is not measured")
    ] = 2,
    twins: Annotated[
        int,
        typer.Option(
            min=0,
            max=MAX_PROMPTS,
            help="of the asked prompts, those measured from a swapped, negated or recounted twin",
        ),
    ] = 64,
    seed: Seed = 1,
    predictor: Annotated[bool, typer.Option("--predictor", help="write the learned predictor, not bands only")] = False,
    search: Annotated[
        list[int] | None,
        typer.Option(help="also find which N steps to compute at best, and measure that level; may be given twice"),
    ] = None,
    from_samples: Annotated[
        Path | None, typer.Option(help="fit to the samples file of an earlier run, drawing nothing")
    ] = None,
) -> None:
    """Measure service times and quality loss by level, similarity and prompt on running workers.

    Beside the profile lies OUT.samples.jsonl with every measured prompt in clear: keep it as you keep your prompts.
    """
    if from_samples is not None:
        run(refit_profile(console, from_samples, out, predictor))
        return
    plan = ProfilePlan(
        pool_file=pool,
        workers=workers,
        prompts=prompts,
        embedder=embedder,
        num_kept=cached,
        num_asked=asked,
        num_seeds=seeds,
        seed=seed,
        num_twins=twins,
        budgets=tuple(search or ()),
    )
    run(run_profile(console, plan, out, predictor))


@dataclass(frozen=True, slots=True)
class ProfilePlan:
    """The command's options."""

    pool_file: Path
    workers: str
    prompts: Path | None
    embedder: Path | None
    num_kept: int
    num_asked: int
    num_seeds: int
    seed: int
    num_twins: int = 0
    budgets: tuple[int, ...] = ()


async def run_profile(console: Console, plan: ProfilePlan, out: Path, with_predictor: bool) -> None:
    """Measure; write samples, JSON and plot; print the tables."""
    measurement = await collect(console, plan)
    samples = out.with_suffix(".samples.jsonl")
    write_samples(measurement, samples)
    console.print(f"written: {samples} (holds the prompts)")
    write_profile(console, measurement, out, with_predictor)


async def refit_profile(console: Console, samples: Path, out: Path, with_predictor: bool) -> None:
    """Fit a profile to an earlier measurement; write JSON and plot; print the tables."""
    write_profile(console, read_samples(samples), out, with_predictor)


async def collect(console: Console, plan: ProfilePlan) -> Measurement:
    """Draw and score on the plan's workers, or on a local pool of its own.

    Raises:
        InputInvalid: an option is missing or cannot be used.
    """
    pool = read_pool(plan.pool_file)
    for budget in plan.budgets:
        check_budget(budget, pool.spec.base_steps)
    if not plan.workers:
        check_model(pool, MODELS_DIR)
    source = str(plan.embedder or pool.spec.model.embedder_source)
    if not source:
        raise InputInvalid("similarities come from an embedder: set model.embedder in the pool, or give --embedder")
    if builtin_folder(pool.spec.model.source) is None and plan.prompts is None:
        raise InputInvalid("--prompts is needed: only the scenes model brings its own captions")
    try:
        embedder = load_embedder(source, MODELS_DIR)
    except EmbedderError as error:
        raise InputInvalid(str(error)) from error
    judge: Judge = SceneJudge() if plan.prompts is None else FidelityJudge()
    if plan.prompts is None:
        samples = scene_samples(plan.num_kept, plan.num_asked, plan.seed)
    else:
        samples = file_samples(plan.prompts, plan.num_kept, plan.num_asked, plan.seed)

    def reads(prompt: str) -> bool:
        return embedder.embed_now(prompt).unread is None

    samples = only_read(samples, reads)
    pairs = pair_twins(samples.asked, plan.num_twins, plan.seed, reads)
    columns = (
        TextColumn("{task.description:24}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        tools = ProfileTools(embedder, judge, bar)

        async def on(addresses: Sequence[str]) -> Measurement:
            ladder = await _levels_to_measure(console, pool.spec, addresses)
            for budget in plan.budgets:
                found = await search_steps(addresses, samples.kept, ladder.exact, tools, budget)
                console.print(found.sentence)
                ladder = build_ladder(ladder.base_steps, {*ladder.levels, found.level, found.even})
            measurement = await measure(addresses, samples, ladder, tools, plan.num_seeds)
            twins = await measure_twins(addresses, pairs, ladder, tools, plan.num_seeds)
            return replace(measurement, twins=twins)

        if plan.workers:
            return await on(plan.workers.split(","))
        starting = bar.add_task("starting workers", total=None)
        async with LocalPool(LocalOptions(plan.pool_file), with_gateway=False) as local:
            bar.update(starting, total=1, completed=1)
            addresses = [worker.address for worker in local.workers]
            return await on(addresses)


async def _levels_to_measure(console: Console, spec: PoolSpec, addresses: Sequence[str]) -> Ladder:
    """Those of the pool; where it names none, all that may be worth it and that the model draws at."""
    if spec.levels:
        return spec.ladder
    candidates = candidate_levels(spec.base_steps)
    refused = await find_refused(addresses, candidates)
    for one in refused:
        console.print(f"not measured: {one.level.phrase}: {one.reason}")
    return build_ladder(spec.base_steps, {*candidates} - {one.level for one in refused})


def write_profile(console: Console, measurement: Measurement, out: Path, with_predictor: bool) -> None:
    """Fit, write JSON and plot, and print what was measured, learned, and kept of its promises.

    The predictor is told in any case, and written only if asked for: the table says whether it is worth it.
    """
    from t2ictl.plotting import plot_profile

    profile, judge = profile_of(measurement), measurement.facts.judge
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(render_profile(profile if with_predictor else replace(profile, predictor=None)))
    plot_profile(profile, judge, out.with_suffix(".png"))
    console.print(to_table(profile, judge))
    if profile.predictor is None:
        console.print(
            f"no predictor: it takes {MIN_PROMPTS} asked prompts with {FOLDS} different nearest ones; "
            "similarity bands are used"
        )
    else:
        console.print(predictor_table(profile.predictor, profile.base_steps))
        console.print(precision_table(cross_validated(measurement), "promises on prompts not trained on"))
        if not with_predictor:
            console.print("the profile has bands only; to use the predictor: --predictor --from-samples FILE")
    console.print(f"written: {out}, {out.with_suffix('.png')}")


def to_table(profile: LevelProfile, judge: str) -> Table:
    table = Table(
        *("level", "runs", "similarity", "loss", "n", "twins lose", "n", "seeds differ less"),
        title=f"quality loss ({judge}) of prompts and of their twins, mean ± s.e.;\n"
        "what images of two seeds lose of their difference, which counts for prompts that are asked again",
    )
    for band in profile.losses:
        high = min(band.similarity_max, 1.0)
        near = f"{band.similarity_min:.2f} to {high:.2f}" if band.level.needs_latent else "any"
        table.add_row(
            band.level.label(profile.base_steps),
            f"{profile.cost_of(band.level):.3g}",
            near,
            _percent(band.mean_loss, band.standard_error),
            str(band.num_samples),
            *_twin_cells(band.twins),
            "unknown" if band.diversity_loss is None else _percent(band.diversity_loss, band.diversity_error),
        )
    return table


def _twin_cells(twins: TwinLoss | None) -> tuple[str, str]:
    if twins is None:
        return "", ""
    return _percent(twins.mean_loss, twins.standard_error), str(twins.num_pairs)


def _percent(mean: float, error: float) -> str:
    return f"{100 * mean:.1f} ± {100 * error:.1f}%"


def predictor_table(predictor: Predictor, base_steps: int) -> Table:
    """Every level's curve and the features it weighs, as people read them."""
    table = Table("level", "loss ± margin by similarity", "features", title="learned predictor")
    for one in predictor.levels:
        points = one.curve if one.level.needs_latent else one.curve[:1]
        curve = ", ".join(f"{p.similarity:.2f}: {100 * p.loss:.1f} ± {100 * p.margin:.1f}%" for p in points)
        terms = ", ".join(f"{term.feature} {100 * term.weight:+.1f}%" for term in one.terms) or "none helped"
        label = one.level.label(base_steps)
        table.add_row(label, curve if one.level.needs_latent else curve.partition(": ")[2], terms)
    return table
