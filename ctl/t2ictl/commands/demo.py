"""`t2ictl demo`: captions with realistic repetition and similarity through a local pool, first calm, then in a burst.

Every caption is then drawn again exactly, with the same seed, so that the summary can say what bending cost. In a pool
of several models, further captions demand each of them.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from t2i_api.pool import PoolSpec
from t2i_policy.profile_document import parse_profile
from t2i_profiler.images import Sample
from t2i_protos.v1 import gateway_pb2
from t2i_scenes import Scene, caption, edit_scene, sample_scene
from t2ictl.client import GatewayClient, connect
from t2ictl.commands.local import StartBar
from t2ictl.credentials import Proof
from t2ictl.demo_summary import Outcome, by_model, own_cost, served_level, summarise, write_demo_sheet
from t2ictl.errors import CallFailed
from t2ictl.local_pool import LocalOptions, LocalPool
from t2ictl.options import DEFAULT_POOL, MAX_PROMPTS, PoolFile, Seed
from t2ictl.running import console, run

LIMIT_S = 60.0
#: (requests in flight, captions until then as a share of all): people trying things, a busy hour, a burst.
PHASES = ((2, 0.2), (6, 0.5), (30, 1.0))
DEMANDED = 8  # captions that demand each model, where there are several
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
class DemoRequest:
    """A caption and what is demanded for it: the exact image, or a model by its name."""

    sample: Sample
    exact: bool = False
    model: str = ""

    def message(self) -> gateway_pb2.GenerateRequest:
        sample = self.sample
        return gateway_pb2.GenerateRequest(prompt=sample.prompt, seed=sample.seed, exact=self.exact, model=self.model)


@dataclass(frozen=True, slots=True)
class ServedDemo:
    """What came of each phase and of captions that demanded a model. `exact`: exact images, in `all`'s order."""

    phases: Sequence[Sequence[Outcome]]
    demanded: Sequence[Outcome]
    exact: Sequence[Outcome] = ()

    @property
    def all(self) -> list[Outcome]:
        return [*(outcome for phase in self.phases for outcome in phase), *self.demanded]


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
    bar = StartBar(console)
    with bar:
        pool = LocalPool(LocalOptions(pool_file, listen="127.0.0.1:0"), bar.report)
        await pool.__aenter__()
    names = model_names(pool.pool.spec)
    try:
        async with connect(pool.address, Proof("demo")) as client:
            columns = (TextColumn("{task.description:28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            with Progress(*columns, console=console) as progress:
                demo = await _serve(_Sender(client, progress), names, count, seed)
    finally:
        await pool.__aexit__()
    summary = summarise_all(demo, pool, names)
    out.mkdir(parents=True, exist_ok=True)
    (out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    write_demo_sheet(demo.all, names, pool.pool.spec.base_steps, summary, out / "contact-sheet.png")
    console.print_json(json.dumps(summary))
    console.print(f"written: {out / 'contact-sheet.png'}, {out / 'summary.json'} ({time.monotonic() - began:.0f} s)")


def model_names(spec: PoolSpec) -> dict[str, str]:
    """What people call the models of a pool, by their names in levels. Its own goes by its source."""
    return {"": spec.model.source.partition("://")[2], **{name: name for name in spec.models}}


def summarise_all(demo: ServedDemo, pool: LocalPool, names: Mapping[str, str]) -> dict[str, object]:
    """With a part for each model and phase, where there are several models."""
    path = pool.options.profile
    cost = own_cost if path is None else parse_profile(path.read_text()).own_steps
    summary = summarise(demo.all, demo.exact, pool.pool.spec.base_steps, cost)
    if len(names) > 1:
        summary["models"] = by_model(demo.all, demo.exact, names)
        summary["phases"] = [
            {"in_flight": in_flight, "images": _count_models(phase, names)}
            for (in_flight, _), phase in zip(PHASES, demo.phases, strict=True)
        ]
    return summary


def _count_models(outcomes: Iterable[Outcome], names: Mapping[str, str]) -> dict[str, int]:
    return dict(Counter(names[served_level(one.generated).model] for one in outcomes if one.generated is not None))


async def _serve(sender: "_Sender", names: Mapping[str, str], count: int, seed: int) -> ServedDemo:
    """Three phases, each with more requests in flight than the one before; then what demands a model; then exact."""
    samples, begin = demo_samples(count, seed), 0
    phases: list[Sequence[Outcome]] = []
    for in_flight, until in PHASES:
        end = round(until * len(samples))
        part, begin = samples[begin:end], end
        phases.append(await sender.send_all(f"{in_flight} in flight", map(DemoRequest, part), in_flight))
    demanding: list[DemoRequest] = []
    if len(names) > 1:
        further = demo_samples(DEMANDED, seed + 1)
        demanding = [DemoRequest(sample, model=name) for name in names.values() for sample in further]
    demanded = await sender.send_all("each model demanded", demanding, 2) if demanding else []
    demo = ServedDemo(phases, demanded)
    exact = [DemoRequest(outcome.sample, exact=True) for outcome in demo.all]
    return replace(demo, exact=await sender.send_all("exact, for comparison", exact, 8))


@dataclass(frozen=True, slots=True)
class _Sender:
    """Sends so many requests at once, and shows how far it is."""

    client: GatewayClient
    progress: Progress

    async def send_all(self, title: str, requests: Iterable[DemoRequest], in_flight: int) -> list[Outcome]:
        """What came of each."""
        given, slots = list(requests), asyncio.Semaphore(in_flight)
        task = self.progress.add_task(title, total=len(given))

        async def send(request: DemoRequest) -> Outcome:
            async with slots:
                outcome = await self._send(request)
                self.progress.advance(task)
                return outcome

        return list(await asyncio.gather(*map(send, given)))

    async def _send(self, request: DemoRequest) -> Outcome:
        began = time.monotonic()
        try:
            generated = await self.client.generate(request.message(), LIMIT_S)
        except CallFailed as error:
            return Outcome(request.sample, None, 0.0, str(error), request.model)
        return Outcome(request.sample, generated, 1e3 * (time.monotonic() - began), asked=request.model)
