"""`t2ictl demo`: captions with realistic repetition and similarity through a local pool, first calm, then in a burst.

Every caption is then drawn again exactly, with the same seed, so that the summary can say what bending cost.
"""

import asyncio
import json
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from t2i_policy.level import Level
from t2i_profiler.images import Sample
from t2i_profiler.judges.scenes import scene_quality
from t2i_protos.v1 import gateway_pb2
from t2i_runtime.level_messages import to_level
from t2i_scenes import Scene, caption, edit_scene, sample_scene
from t2ictl.client import GatewayClient, Generated, connect
from t2ictl.commands.local import StartBar
from t2ictl.contact_sheet import SheetCell, write_sheet
from t2ictl.credentials import Proof
from t2ictl.errors import CallFailed
from t2ictl.local_pool import LocalOptions, LocalPool
from t2ictl.options import DEFAULT_POOL, MAX_PROMPTS, PoolFile, Seed
from t2ictl.running import console, run

LIMIT_S = 60.0
#: (requests in flight, captions until then as a share of all): people trying things, a busy hour, a burst.
PHASES = ((2, 0.2), (6, 0.5), (30, 1.0))
#: What the next caption is to the earlier ones: new, the same words again, other words for it, one thing changed.
SHARES = {"new": 0.3, "again": 0.15, "reworded": 0.3, "edited": 0.25}


def demo(
    out: Annotated[Path, typer.Option(help="folder for contact-sheet.png and summary.json")] = Path("build/demo"),
    pool: PoolFile = DEFAULT_POOL,
    captions: Annotated[int, typer.Option(min=8, max=MAX_PROMPTS, help="captions to send")] = 60,
    seed: Seed = 7,
) -> None:
    """Send captions with repetition and similarity through a local pool; score and show the images."""
    run(run_demo(console, pool, out, captions, seed))


@dataclass(frozen=True, slots=True)
class Outcome:
    """One caption's result; `generated` None when it failed with `error`."""

    sample: Sample
    generated: Generated | None
    latency_ms: float
    error: str = ""


def demo_samples(count: int, seed: int) -> list[Sample]:
    """A stream of captions as users make them: mostly variations of what was asked before."""
    rng = np.random.default_rng(seed)
    samples: list[Sample] = []
    while len(samples) < count:
        kind = str(rng.choice(list(SHARES), p=list(SHARES.values()))) if samples else "new"
        earlier = samples[int(rng.integers(len(samples)))] if samples else None
        samples.append(_next_sample(kind, earlier, rng))
    return samples


def _next_sample(kind: str, earlier: Sample | None, rng: np.random.Generator) -> Sample:
    seed = int(rng.integers(1 << 31))
    if earlier is None or earlier.scene is None or kind == "new":
        scene: Scene = sample_scene(rng)
    elif kind == "again":
        return Sample(earlier.prompt, seed, earlier.scene)
    else:
        scene = edit_scene(earlier.scene, rng, 1) if kind == "edited" else earlier.scene
    return Sample(caption(scene, rng), seed, scene)


async def run_demo(console: Console, pool_file: Path, out: Path, count: int, seed: int) -> None:
    """Serve, score, write contact-sheet.png and summary.json."""
    began = time.monotonic()
    samples = demo_samples(count, seed)
    bar = StartBar(console)
    with bar:
        pool = LocalPool(LocalOptions(pool_file, listen="127.0.0.1:0"), bar.report)
        await pool.__aenter__()
    try:
        async with connect(pool.address, Proof("demo")) as client:
            columns = (TextColumn("{task.description:28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            with Progress(*columns, console=console) as progress:
                served = await _serve(client, samples, progress)
                exact = await _exact(client, samples, progress)
    finally:
        await pool.__aexit__()
    base_steps = pool.pool.spec.model.num_inference_steps
    summary = summarise(served, exact, base_steps)
    out.mkdir(parents=True, exist_ok=True)
    (out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    _write_sheet(served, base_steps, summary, out / "contact-sheet.png")
    console.print_json(json.dumps(summary))
    console.print(f"written: {out / 'contact-sheet.png'}, {out / 'summary.json'} ({time.monotonic() - began:.0f} s)")


async def _serve(client: GatewayClient, samples: Sequence[Sample], progress: Progress) -> list[Outcome]:
    """Three phases, each with more requests in flight than the one before."""
    outcomes: list[Outcome] = []
    begin = 0
    for in_flight, until in PHASES:
        end = round(until * len(samples))
        part, begin = samples[begin:end], end
        task = progress.add_task(f"{in_flight} in flight", total=len(part))
        outcomes += await _send_all(client, part, in_flight, False, progress, task)
    return outcomes


async def _exact(client: GatewayClient, samples: Sequence[Sample], progress: Progress) -> list[Outcome]:
    task = progress.add_task("exact, for comparison", total=len(samples))
    return await _send_all(client, samples, 8, True, progress, task)


async def _send_all(
    client: GatewayClient, samples: Sequence[Sample], in_flight: int, exact: bool, progress: Progress, task: int
) -> list[Outcome]:
    slots = asyncio.Semaphore(in_flight)

    async def send(sample: Sample) -> Outcome:
        async with slots:
            outcome = await _send(client, sample, exact)
            progress.advance(progress.task_ids[task])
            return outcome

    return list(await asyncio.gather(*(send(sample) for sample in samples)))


async def _send(client: GatewayClient, sample: Sample, exact: bool) -> Outcome:
    request = gateway_pb2.GenerateRequest(prompt=sample.prompt, seed=sample.seed, exact=exact)
    began = time.monotonic()
    try:
        generated = await client.generate(request, LIMIT_S)
    except CallFailed as error:
        return Outcome(sample, None, 0.0, str(error))
    return Outcome(sample, generated, 1e3 * (time.monotonic() - began))


def score(outcome: Outcome) -> float:
    """The image's score by the exact scorer, 0 for a failed request."""
    if outcome.generated is None:
        return 0.0
    return scene_quality(outcome.generated.data, outcome.sample)


def served_level(generated: Generated) -> Level:
    """The level that really ran."""
    return to_level(generated.done.served)


def summarise(served: Sequence[Outcome], exact: Sequence[Outcome], base_steps: int) -> dict[str, object]:
    """The summary: failures count as requests with no image; scores and latencies are of those that got one."""
    images = [outcome for outcome in served if outcome.generated is not None]
    levels = [served_level(outcome.generated) for outcome in images if outcome.generated is not None]
    mean, mean_exact = _mean_score(images), _mean_score([o for o in exact if o.generated is not None])
    latencies = sorted(outcome.latency_ms for outcome in images)
    counts = Counter(level.label(base_steps) for level in sorted(levels))
    return {
        "requests": len(served),
        "served": len(images),
        "failed": len(served) - len(images),
        "cache_hits": sum(level.needs_latent for level in levels),
        "levels": dict(counts),
        "mean_score": round(mean, 4),
        "mean_score_exact": round(mean_exact, 4),
        "quality_percent": round(100 * mean / mean_exact, 1) if mean_exact else 0.0,
        "p50_ms": round(statistics.median(latencies), 1) if latencies else 0.0,
        "p95_ms": round(float(np.percentile(latencies, 95)), 1) if latencies else 0.0,
        "steps_saved_percent": round(100 * (1 - sum(lv.cost for lv in levels) / (base_steps * len(levels))), 1)
        if levels
        else 0.0,
        "errors": dict(Counter(outcome.error for outcome in served if outcome.error)),
    }


def _mean_score(outcomes: Sequence[Outcome]) -> float:
    return float(np.mean([score(outcome) for outcome in outcomes])) if outcomes else 0.0


def _write_sheet(served: Sequence[Outcome], base_steps: int, summary: dict[str, object], to: Path) -> None:
    cells = []
    for outcome in served:
        if outcome.generated is not None:
            level = served_level(outcome.generated)
            kind = f"K={level.skipped_steps}" if level.needs_latent else level.phrase
            verdict = f"{kind} score {score(outcome):.2f}"
            cells.append(SheetCell(outcome.generated.data, outcome.sample.prompt, verdict))
    title = (
        f"{summary['served']} of {summary['requests']} served · quality {summary['quality_percent']}% of exact · "
        f"{summary['steps_saved_percent']}% of steps saved · exact = {base_steps} steps"
    )
    write_sheet(cells, title, to)
