"""`t2ictl profile`: measure what every level costs and loses, on running workers, and fit the profile to it.

Every measured prompt is kept in a samples file for each judge. So a profile can be fitted anew without drawing again.
The fit is similarity bands (`bands`), bounded by what twins lost. With enough prompts it is the learned predictor, too
(`fit`). Its precision is told on prompts that it did not see (`precision`).
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from t2i_policy.model_section import ModelSection
from t2i_policy.profile import JudgedLosses, LevelProfile
from t2i_policy.profile_document import render_profile
from t2i_profiler.fit import FOLDS, MIN_PROMPTS
from t2i_profiler.journal import Journal
from t2i_profiler.measure import Asking
from t2i_profiler.other_models import section_of
from t2i_profiler.precision import cross_validated, joined_profile, precision_table
from t2i_profiler.sample_file import Measurement, read_samples, write_samples
from t2ictl.cluster import PoolName
from t2ictl.errors import InputInvalid
from t2ictl.options import DEFAULT_POOL, MAX_PROMPTS, EmbedderFolder, Seed
from t2ictl.profile_tables import losses_table, predictor_table
from t2ictl.profiling import Measured, ProfilePlan, ProfileTarget, collect
from t2ictl.running import console, run


def profile(
    out: Annotated[Path, typer.Option(help="profile JSON to write; a report goes beside it")] = Path("profile.json"),
    pool: Annotated[
        str, typer.Option("--pool", "-p", help="T2IServingPool file, or NAMESPACE/NAME of a pool in the cluster")
    ] = str(DEFAULT_POOL),
    replace_judge: Annotated[
        bool, typer.Option("--replace-judge", help="also over a ConfigMap's profile by another judge")
    ] = False,
    workers: Annotated[str, typer.Option(help="addresses of running workers; default: start the pool's own")] = "",
    prompts: Annotated[
        Path | None, typer.Option(help="one prompt a line; default: captions of the scenes model")
    ] = None,
    embedder: EmbedderFolder = None,
    judge: Annotated[
        list[str] | None,
        typer.Option(
            help="who scores images: pickscore, clipscore, aesthetic, hps, lpips or dists, alone or with "
            "=ADDRESS; command://PROGRAM; https://...; may be given several times, the first decides"
        ),
    ] = None,
    judge_device: Annotated[str, typer.Option(help="torch device of the judges; default: the first GPU")] = "",
    cached: Annotated[int, typer.Option(min=8, max=MAX_PROMPTS, help="prompts whose latents are kept")] = 200,
    asked: Annotated[int, typer.Option(min=8, max=MAX_PROMPTS, help="prompts measured against them, at most")] = 240,
    standard_error: Annotated[
        float,
        typer.Option(
            min=0, max=50, help="stop as soon as no level's mean loss has a larger one, in percent; 0 = ask all prompts"
        ),
    ] = 0.0,
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
    variants: Annotated[
        int,
        typer.Option(
            min=0,
            max=MAX_PROMPTS,
            help="of the asked prompts, those measured at the pool's other sizes and adapters too",
        ),
    ] = 0,
    seed: Seed = 1,
    tls_dir: Annotated[
        Path | None,
        typer.Option(
            help="for secured workers of --pool NAMESPACE/NAME: folder with tls.crt, tls.key and ca.crt; default: the "
            "Secret of the pool's gateways"
        ),
    ] = None,
    at_full_speed: Annotated[
        bool, typer.Option("--at-full-speed", help="on --workers: nobody else is served, fill their batches")
    ] = False,
    predictor: Annotated[bool, typer.Option("--predictor", help="write the learned predictor, not bands only")] = False,
    search: Annotated[
        list[int] | None,
        typer.Option(help="also find which N steps to compute at best, and measure that level; may be given twice"),
    ] = None,
    from_samples: Annotated[
        list[Path] | None,
        typer.Option(help="fit to samples files of an earlier run, one for each judge, drawing nothing"),
    ] = None,
    beside: Annotated[
        list[str] | None,
        typer.Option(help="NAME=SAMPLES of another model, same prompts and judge: its section; with --from-samples"),
    ] = None,
) -> None:
    """Measure service times and quality loss by level, similarity and prompt on running workers.

    Interrupted, the same command goes on where it stopped. Beside the profile lie OUT.samples.jsonl with every measured
    prompt in clear: keep it as you keep your prompts.
    """
    if beside and (not from_samples or is_pool_name(pool)):
        raise typer.BadParameter("--beside sets samples files against those of --from-samples, into a file")
    if tls_dir is not None and (from_samples or not is_pool_name(pool)):
        raise typer.BadParameter("--tls-dir is for measuring workers of --pool NAMESPACE/NAME")
    if from_samples and is_pool_name(pool):
        run(refit_in_cluster(console, from_samples, PoolName.parse(pool), out, predictor, replace_judge))
        return
    if from_samples:
        run(refit_profile(console, from_samples, out, predictor, beside or ()))
        return
    plan = ProfilePlan(
        prompts=prompts,
        embedder=embedder,
        judges=tuple(judge or ()),
        num_kept=cached,
        num_asked=asked,
        seed=seed,
        asking=Asking(seeds, standard_error / 100),
        journal=out.with_suffix(".journal"),
        num_twins=twins,
        budgets=tuple(search or ()),
        yields=not at_full_speed,
        judge_device=judge_device,
        num_variant_prompts=variants,
    )
    if is_pool_name(pool):
        run(profile_in_cluster(console, plan, PoolName.parse(pool), tls_dir, out, predictor, replace_judge))
    else:
        run(profile_file(console, plan, Path(pool), workers, out, predictor))


def is_pool_name(text: str) -> bool:
    """`NAMESPACE/NAME`, and no file."""
    return re.fullmatch(r"[a-z0-9-]+/[a-z0-9-]+", text) is not None and not Path(text).exists()


async def profile_file(
    console: Console, plan: ProfilePlan, pool: Path, workers: str, out: Path, with_predictor: bool
) -> None:
    """The pool of a file, on its own workers or on running ones."""
    await run_profile(console, plan, ProfileTarget.of_file(pool, workers), out, with_predictor)


async def profile_in_cluster(
    console: Console,
    plan: ProfilePlan,
    name: PoolName,
    tls_dir: Path | None,
    out: Path,
    with_predictor: bool,
    replace_judge: bool,
) -> None:
    """A pool of the cluster, on its workers while they serve; into its ConfigMap."""
    from t2ictl.cluster_profile import publish_profile, target_in_cluster

    async with target_in_cluster(name, tls_dir) as target:
        profile = await run_profile(console, plan, target, out, with_predictor)
        console.print(await publish_profile(name, target.spec, profile, replace_judge), soft_wrap=True)


async def run_profile(
    console: Console, plan: ProfilePlan, target: ProfileTarget, out: Path, with_predictor: bool
) -> LevelProfile:
    """Measure; write samples, JSON and report; print the tables."""
    measured = await collect(console, plan, target)
    for path, measurement in zip(sample_files(out, len(measured.by_judge)), measured.by_judge, strict=True):
        write_samples(measurement, path)
        console.print(f"written: {path} (holds the prompts)")
    profile = write_profile(console, measured, out, with_predictor)
    measured.journal.end()
    return profile


def sample_files(out: Path, num_judges: int) -> list[Path]:
    """OUT.samples.jsonl, and OUT.2.samples.jsonl and so on for further judges."""
    return [out.with_suffix(".samples.jsonl" if at == 1 else f".{at}.samples.jsonl") for at in range(1, num_judges + 1)]


async def refit_in_cluster(
    console: Console, samples: Sequence[Path], name: PoolName, out: Path, with_predictor: bool, replace_judge: bool
) -> None:
    """As `refit_profile`, and into the pool's ConfigMap."""
    from t2ictl.cluster_profile import publish_profile, spec_in_cluster

    spec = await spec_in_cluster(name)
    profile = await refit_profile(console, samples, out, with_predictor)
    console.print(await publish_profile(name, spec, profile, replace_judge), soft_wrap=True)


async def refit_profile(
    console: Console, samples: Sequence[Path], out: Path, with_predictor: bool, beside: Sequence[str] = ()
) -> LevelProfile:
    """Fit a profile to an earlier measurement; write JSON and report; print the tables. `beside`: NAME=SAMPLES each."""
    by_judge = tuple(read_samples(path) for path in samples)
    models = tuple(_section(text, by_judge[0]) for text in beside)
    return write_profile(console, Measured(by_judge, Journal(), models=models), out, with_predictor)


def _section(text: str, reference: Measurement) -> ModelSection:
    name, _, path = text.partition("=")
    if re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", name) is None or not path:
        raise InputInvalid(f"--beside {text!r}: expected NAME=SAMPLES, a name of lower-case letters, digits and dashes")
    return section_of(name, reference, read_samples(Path(path)))


def write_profile(console: Console, measured: Measured, out: Path, with_predictor: bool) -> LevelProfile:
    """Fit, write JSON and report, and print what was measured, learned, and kept of its promises.

    The predictor is told in any case, and written only if asked for: the table says whether it is worth it.
    """
    from t2ictl.plotting import plot_profile
    from t2ictl.profile_report import write_report

    profile = replace(joined_profile(measured.by_judge), variants=measured.variants, models=measured.models)
    written = profile if with_predictor else replace(profile, predictor=None)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(render_profile(written))
    plot_profile(profile, profile.judged[0].judge.phrase, out.with_suffix(".png"))
    for judged in profile.judged:
        console.print(losses_table(profile, judged))
    for section in profile.models:
        console.print(losses_table(profile, JudgedLosses(profile.judged[0].judge, section.losses)))
    if profile.predictor is None:
        console.print(
            f"no predictor: it takes {MIN_PROMPTS} asked prompts with {FOLDS} different nearest ones; "
            "similarity bands are used"
        )
    else:
        console.print(predictor_table(profile.predictor, profile.base_steps))
        console.print(precision_table(cross_validated(measured.by_judge[0]), "promises on prompts not trained on"))
        if not with_predictor:
            console.print("the profile has bands only; to use the predictor: --predictor --from-samples FILE")
    report = write_report(profile, measured.by_judge, measured.journal, out)
    console.print(f"written: {', '.join(map(str, (out, out.with_suffix('.png'), *report)))}", soft_wrap=True)
    return written
