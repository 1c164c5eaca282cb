"""Many requests at once through the whole engine: none may fail, hang, or get another image than alone."""

import asyncio
import io
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pillow

from t2i_policy.image_size import ImageSize
from t2i_runtime.drawing import Drawing, ScaledAdapter
from t2i_sources import IpAdapterFiles
from t2i_testing_kit.tiny_pipelines.adapters import save_adapter
from t2i_testing_kit.tiny_pipelines.in_engine import TinyEngine
from t2i_testing_kit.tiny_pipelines.ip_adapters import ENCODER, WEIGHTS, save_ip_adapter
from t2i_testing_kit.tiny_pipelines.stock import TinyRequest, sample_image
from t2i_testing_kit.tiny_pipelines.text_encoders import WORDS
from t2i_worker.engine.diffusion import DiffusionEngine
from t2i_worker.errors import WorkerError
from t2i_worker.input_images import NO_PICTURES, ComponentPicture, DecodedImages
from t2i_worker.jobs import Image, Job, Progress
from t2i_worker.pipelines import AdapterFile
from t2i_worker.pipelines.ip_adapters import load_ip_adapter

CAP = 8
ADAPTERS = ("style", "words")
ADAPTER_SETS = (
    (),
    (ScaledAdapter("style", 1.0),),
    (ScaledAdapter("style", 0.5),),
    (ScaledAdapter("style", 1.0), ScaledAdapter("words", 0.7)),
)
OTHER_SAMPLER = {
    "sdxl": "dpm++-2m-karras",
    "sd3": "heun",
    "flux-dev": "lcm",
    "flux-kontext": "lcm",
    "chroma": "lcm",
}
NO_TEXT_LAYERS = ("chroma",)  # adapters are for CLIP; it has a T5 alone
START = sample_image(48, 32)
SHOWN = tuple(
    ComponentPicture("face", picture, scale)
    for picture, scale in ((sample_image(40, 24), 0.7), (sample_image(32, 64).rotate(90), 0.7), (START, 1.2))
)
SIZES = (ImageSize(48, 32), ImageSize(32, 32), ImageSize(32, 64))
DIFFERENT_JOBS = 40  # of a race; each is drawn alone once
END_LIMIT_S = 900.0
ROUNDING = 1  # a batch rounds in another order than a row alone, which may move a pixel by one level of 255
Pixels = np.ndarray[Any, np.dtype[np.uint8]]


@dataclass(frozen=True)
class CrowdFigures:
    """`zombies` never ended, or left a place in the batch or in the queue taken."""

    family: str
    kind: str
    requests: int
    cancelled: int
    failed: int
    different: int
    zombies: int

    @property
    def key(self) -> str:
        return f"{self.family} {self.kind}"


@dataclass(frozen=True)
class Visitor:
    """A job that comes after a while and may leave early: after so many steps, -1 = it stays."""

    job: Job
    comes_s: float = 0.0
    leaves_at: int = -1


def race(name: str, folder: Path, count: int) -> CrowdFigures:
    """All at once, with prompts of many lengths: tokenizers and encoders are asked from many threads."""
    engine, draws = TinyEngine(name, folder), random.Random(1)
    jobs = [_job(engine, draws, seed, steps=2) for seed in range(min(count, DIFFERENT_JOBS))]
    return asyncio.run(_meet(name, "race", engine, [Visitor(jobs[number % len(jobs)]) for number in range(count)]))


def random_arrivals(name: str, folder: Path, count: int, seed: int) -> CrowdFigures:
    """At random times within a second, each with steps, size, number of images, adapters, sampler and perhaps an image
    to start from and one for an IP-Adapter; some with previews, every fifth cancelled.
    """
    adapters = [
        AdapterFile(kind, save_adapter(folder, folder / kind, at, texts=at > 0 and name not in NO_TEXT_LAYERS))
        for at, kind in enumerate(ADAPTERS)
    ]
    engine, draws = TinyEngine(name, folder, adapters=adapters), random.Random(seed)
    edits = engine.family.takes_image
    starts = (NO_PICTURES, NO_PICTURES, DecodedImages(START, strength=None if edits else 0.6))
    made = save_ip_adapter(folder, folder / "ip-adapter")
    load_ip_adapter(engine.pipeline, "face", IpAdapterFiles(made / WEIGHTS, made / ENCODER))
    visitors = []
    for number in range(count):
        job = replace(
            _job(engine, draws, number, steps=draws.randint(2, 8)),
            size=draws.choice(SIZES),
            drawing=Drawing(
                sampler=draws.choice(("", "", OTHER_SAMPLER[name])),
                arguments={**engine.family.extra, "num_images_per_prompt": draws.randint(1, 3)},
                adapters=draws.choice(ADAPTER_SETS),
            ),
            images=replace(draws.choice(starts), ip_adapter=draws.choice((None, None, *SHOWN))),
            preview_every_steps=2 if number % 7 == 0 else 0,
        )
        leaves_at = draws.randrange(job.level.num_inference_steps) if number % 5 == 0 else -1
        visitors.append(Visitor(job, draws.random(), leaves_at))
    return asyncio.run(_meet(name, "arrivals", engine, visitors))


def _job(engine: TinyEngine, draws: random.Random, seed: int, steps: int) -> Job:
    prompt, avoided = (" ".join(draws.choices(WORDS, k=draws.randint(1, most))) for most in (30, 6))
    negative = avoided if engine.family.negative and seed % 2 else ""
    return engine.job(TinyRequest(prompt, negative, seed, steps))


async def _meet(family: str, kind: str, tiny: TinyEngine, visitors: Sequence[Visitor]) -> CrowdFigures:
    async with _engine(tiny, len(visitors)) as engine:
        jobs = {visitor.job.seed: visitor.job for visitor in visitors}
        alone = {seed: await _draw(engine, Visitor(job)) for seed, job in jobs.items()}
        tasks = [asyncio.create_task(_draw(engine, visitor)) for visitor in visitors]
        _, late = await asyncio.wait(tasks, timeout=END_LIMIT_S)
        for task in late:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        taken = await _places_taken(engine)
    together = [None if task.cancelled() else task.result() for task in tasks]
    stayed = [place for place, visitor in enumerate(visitors) if visitor.leaves_at < 0]
    pairs = [(alone[visitors[place].job.seed], together[place]) for place in stayed]
    drawn = [(one, other) for one, other in pairs if one is not None and other is not None]
    return CrowdFigures(
        family=family,
        kind=kind,
        requests=len(visitors),
        cancelled=len(visitors) - len(stayed),
        failed=len(stayed) - len(drawn) - len(late),
        different=sum(int(np.abs(one.astype(np.int16) - other).max()) > ROUNDING for one, other in drawn),
        zombies=len(late) + taken,
    )


@asynccontextmanager
async def _engine(tiny: TinyEngine, queue_cap: int) -> AsyncIterator[DiffusionEngine]:
    engine = tiny.diffusion_engine(CAP, queue_cap)
    try:
        yield engine
    finally:
        await engine.close()


async def _draw(engine: DiffusionEngine, visitor: Visitor) -> Pixels | None:
    """Its images [n, H, W, 3]; None if it failed or left."""
    await asyncio.sleep(visitor.comes_s)
    images = []
    try:
        async with aclosing(engine.generate(visitor.job)) as events:
            async for event in events:
                if isinstance(event, Progress) and 0 <= visitor.leaves_at <= event.step:
                    return None
                if isinstance(event, Image):
                    images.append(np.asarray(Pillow.open(io.BytesIO(event.data))))
    except WorkerError:
        return None
    return np.stack(images)


async def _places_taken(engine: DiffusionEngine) -> int:
    """Places that nobody gives back within a second after the last request."""
    for _ in range(100):
        load = engine.load()
        if load.running + load.waiting == 0:
            return 0
        await asyncio.sleep(0.01)
    return load.running + load.waiting
