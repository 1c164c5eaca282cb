"""`t2ictl simulate`: what quality, what p99, how many violations, with how many GPUs, under which policy.

Reads and checks everything first, then runs each policy over the same trace, prompts and draws.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from t2i_api.pool import Pool
from t2i_policy.policies import ServingPolicy
from t2i_policy.profile import ProfileError
from t2i_simulator.clock import Progress as Counting
from t2i_simulator.embedding import Encoder, SentenceEncoder, embed
from t2i_simulator.engine import simulate as replay
from t2i_simulator.errors import SimulatorError
from t2i_simulator.profiles import build_groups
from t2i_simulator.report import Row, Setting, Timeline, measure, summarise, timeline
from t2i_simulator.rivals.catalogue import OURS, choose_policies
from t2i_simulator.similarity import PromptSimilarities, Vectors
from t2i_simulator.traces import number_prompts, read_arrivals, read_prompts
from t2i_simulator.true_loss import Truth, discriminator
from t2i_simulator.workers import Group
from t2i_simulator.workload import TracePrompts, Workload, build_workload
from t2i_sources import builtin_folder
from t2i_sources.embedder import Embedder, EmbedderError, load_embedder
from t2ictl.errors import InputInvalid
from t2ictl.fault_options import parse_faults
from t2ictl.local_pool import MODELS_DIR, read_pool
from t2ictl.models_of_groups import parse_models
from t2ictl.options import PAPER_POOL, ModelOfGroup, NumWorkers, PoolFile, ProfileForAll, Seed
from t2ictl.other_sizes import parse_other_sizes
from t2ictl.running import console, told_in_a_line


def simulate(
    arrivals: Annotated[Path, typer.Option(help="one time in ms a line")],
    pool: PoolFile = PAPER_POOL,
    prompts: Annotated[
        Path | None, typer.Option(help="one prompt a line, in order, cycled; default: similarities are drawn")
    ] = None,
    policy: Annotated[str, typer.Option(help="NAME[,NAME...] or all")] = "prompt-aware",
    workers: NumWorkers = None,
    speedup: Annotated[float, typer.Option(min=0.001, max=1e6, help="how many times faster requests arrive")] = 1.0,
    profile: ProfileForAll = None,
    embedder: Annotated[
        Path | None, typer.Option(help="embedder folder; default: the model's or a sentence encoder")
    ] = None,
    fresh_cycles: Annotated[
        bool, typer.Option(help="a prompt that comes again by cycling finds others, not itself")
    ] = False,
    fault: Annotated[
        list[str] | None, typer.Option(help="WORKER@FROM-UNTIL dies, ...xN steps N times slower; seconds")
    ] = None,
    size: Annotated[
        list[str] | None, typer.Option(help="WIDTHxHEIGHT=SHARE of the requests, such as 1024x1536=0.2")
    ] = None,
    model: ModelOfGroup = None,
    reload_s: Annotated[
        float | None,
        typer.Option(
            "--reload", min=0.1, max=86400, help="with --model: workers move between models, in so many seconds"
        ),
    ] = None,
    seed: Seed = 0,
    json_out: Annotated[Path | None, typer.Option("--json", help="rows, one a policy")] = None,
    plot_out: Annotated[Path | None, typer.Option("--plot", help="picture of the course over time")] = None,
) -> None:
    """Say what quality, p99 and violations a pool would have under a trace, by running the real decisions over it."""
    options = SimulateOptions(
        pool_file=pool,
        arrivals=arrivals,
        prompts=prompts,
        policies=policy,
        workers=workers,
        speedup=speedup,
        profile=profile,
        embedder=embedder,
        fresh_cycles=fresh_cycles,
        faults=fault or [],
        sizes=size or [],
        models=model or [],
        reload_s=reload_s,
        seed=seed,
        json_out=json_out,
        plot_out=plot_out,
    )
    with told_in_a_line():
        run_simulate(console, options)


@dataclass(frozen=True, slots=True)
class SimulateOptions:
    """The command's options."""

    pool_file: Path
    arrivals: Path
    prompts: Path | None
    policies: str
    workers: int | None
    speedup: float
    profile: Path | None
    embedder: Path | None
    fresh_cycles: bool
    faults: Sequence[str]
    sizes: Sequence[str]
    models: Sequence[str]
    reload_s: float | None
    seed: int
    json_out: Path | None
    plot_out: Path | None


def run_simulate(console: Console, options: SimulateOptions) -> None:
    """Simulate, print the table, write JSON and plot.

    Raises:
        InputInvalid: a file or option cannot be used; names the line or the field.
    """
    try:
        columns = (TextColumn("{task.description:28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=console) as bar:
            rows, timelines, groups = _simulate(options, bar)
    except SimulatorError as error:
        raise InputInvalid(str(error)) from error
    console.print(to_table(rows))
    if options.reload_s is not None:
        moved = ", ".join(f"{row.policy} {row.reloads}" for row in rows)
        console.print(f"workers that were loaded with another model: {moved}")
    if options.prompts is None:
        console.print("no --prompts: similarities were drawn from the lineage's histogram, every latent was there")
    if any(group.profile.model_digest.startswith("assumed:") for group in groups):
        console.print("losses and step times are the lineage's assumptions, see t2i_simulator/lineage.py")
    if options.json_out is not None:
        options.json_out.parent.mkdir(parents=True, exist_ok=True)
        options.json_out.write_text(json.dumps([row.to_document() for row in rows], indent=1) + "\n")
        console.print(f"written: {options.json_out}")
    if options.plot_out is not None:
        from t2ictl.simulate_plot import plot_timelines

        options.plot_out.parent.mkdir(parents=True, exist_ok=True)
        plot_timelines(timelines, pool_title(rows[0]), options.plot_out)
        console.print(f"written: {options.plot_out}")


def _simulate(options: SimulateOptions, bar: Progress) -> tuple[list[Row], dict[str, Timeline], tuple[Group, ...]]:
    pool = read_pool(options.pool_file)
    models = parse_models(options.models, pool.spec)
    policies = choose_policies(options.policies, pool.spec, several=bool(models or pool.spec.models))
    if pool.spec.pinned_workers and any(policy.name == OURS for policy in policies):
        if options.workers is not None:
            raise InputInvalid("--workers: mix.mode Fixed places every worker: make it Auto, or edit the file")
        bar.console.print(f"the pool's mix is Fixed: {OURS} keeps to it, other policies plan their own")
    if (replicas := pool.spec.gateway.replicas) > 1:
        bar.console.print(
            f"{replicas} gateways, as gateway.replicas says: each has its queue and hears of others' late"
        )
    folder = builtin_folder(pool.spec.model.source)
    own = None if folder is None else folder / "profile.json"
    groups = build_groups(pool.spec, options.pool_file.parent, own, options.profile, options.workers, models)
    faults = parse_faults(options.faults, groups)
    arrived_s = read_arrivals(options.arrivals, options.speedup)
    prompts = None if options.prompts is None else _read_prompts(options, options.prompts, pool, bar)
    sizes = parse_other_sizes(options.sizes, pool.spec.model, groups[0].profile)
    workload = build_workload(pool.spec, groups, arrived_s, prompts, options.seed, faults, sizes)
    if options.reload_s is not None:
        workload = _with_moves(workload, options.reload_s)
    rows: list[Row] = []
    timelines: dict[str, Timeline] = {}
    for policy in policies:
        row, course = _run_one(options, workload, policy, bar)
        rows.append(row)
        timelines[policy.name] = course
    return rows, timelines, groups


def _with_moves(workload: Workload, reload_s: float) -> Workload:
    """Any worker may be loaded with any model that a group holds."""
    models = dict.fromkeys(group.model for group in workload.scenario.groups)
    if len(models) < 2:
        raise InputInvalid("--reload: all workers hold one model; name another with --model GROUP=MODEL")
    try:
        for group, model in product(workload.scenario.groups, models):
            group.profile.section(model)
    except ProfileError as error:
        raise InputInvalid(f"--reload: any worker may be given any model: {error}") from error
    return replace(workload, scenario=replace(workload.scenario, reload_s=dict.fromkeys(models, reload_s)))


def _run_one(
    options: SimulateOptions, workload: Workload, policy: ServingPolicy, bar: Progress
) -> tuple[Row, Timeline]:
    truth = Truth(workload.scenario.profile, options.seed)
    scenario = replace(workload.scenario, discriminator=discriminator(truth, workload.prompt_of))
    task = bar.add_task(policy.name, total=len(scenario.arrived_s))
    outcomes = replay(scenario, policy, lambda arrived: bar.update(task, completed=arrived))
    workers = sum(group.num_workers for group in scenario.groups)
    trace = options.arrivals.stem
    setting = Setting(trace, scenario.ladder, scenario.target.slo_s, workers, workload.prompt_of)
    measured = measure(outcomes, setting, truth)
    return summarise(policy.name, outcomes, setting, measured), timeline(outcomes, measured)


def _read_prompts(options: SimulateOptions, path: Path, pool: Pool, bar: Progress) -> TracePrompts:
    unique, of_line = number_prompts(read_prompts(path))
    task = bar.add_task("embedding prompts", total=len(unique))
    encoder = _find_encoder(options.embedder, pool)
    vectors = embed(encoder, unique, progress=lambda done: bar.update(task, completed=done))
    return TracePrompts(PromptSimilarities(vectors), of_line, own_repeats=not options.fresh_cycles)


def _find_encoder(folder: Path | None, pool: Pool) -> Encoder:
    """The one asked for, else the pool's, else the builtin model's own, else the sentence encoder."""
    model = pool.spec.model
    source = str(folder or model.embedder or (model.source if model.source.startswith("builtin://") else ""))
    if not source:
        return SentenceEncoder()
    try:
        return OnnxEncoder(load_embedder(source, MODELS_DIR))
    except EmbedderError as error:
        raise InputInvalid(str(error)) from error


class OnnxEncoder:
    """A gateway's embedder."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self.name = f"onnx-{embedder.digest}-whole"

    def encode(self, prompts: Sequence[str], progress: Counting) -> Vectors:
        rows = []
        for number, prompt in enumerate(prompts, start=1):
            found = self._embedder.embed_now(prompt)
            rows.append(found.vector if found.unread is None else np.zeros_like(found.vector))
            progress(number)
        return np.stack(rows)


def pool_title(row: Row) -> str:
    """What all rows of one command share."""
    return f"{row.trace}: {row.offered} requests, {row.workers} workers, SLO {row.slo_s:g} s"


def to_table(rows: Sequence[Row]) -> Table:
    table = Table(title=pool_title(rows[0]), box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("policy", no_wrap=True)
    headings = ("viol %", "shed %", "late %", "fail %", "qual %", "p50 s", "p99 s", "steps")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        late, failed = 100 * row.late / row.offered, 100 * row.failed / row.offered
        rare = [f"{value:.1f}" for value in (row.shed_percent, late, failed)]
        times = [f"{value:.1f}" for value in (row.p50_s, row.p99_s, row.mean_steps_run)]
        table.add_row(row.policy, f"{row.violation_percent:.2f}", *rare, f"{row.quality_percent:.2f}", *times)
    return table
