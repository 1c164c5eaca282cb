"""Two models in the memory of one process: requests of both at once draw what each draws with nobody beside it.

They come with LoRA adapters and IP-Adapters of their model in turns, and some leave while they run.
"""

import asyncio
import io
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from t2i_runtime.drawing import PLAIN, Drawing, ScaledAdapter
from t2i_sources import IpAdapterFiles
from t2i_testing_kit.tiny_pipelines.adapters import save_adapter
from t2i_testing_kit.tiny_pipelines.families import save_family
from t2i_testing_kit.tiny_pipelines.in_engine import TinyEngine
from t2i_testing_kit.tiny_pipelines.ip_adapters import ENCODER, WEIGHTS, save_ip_adapter
from t2i_testing_kit.tiny_pipelines.stock import TinyRequest, sample_image
from t2i_worker.engine.diffusion import DiffusionEngine
from t2i_worker.input_images import NO_PICTURES, ComponentPicture, DecodedImages
from t2i_worker.jobs import Image, Job, Progress
from t2i_worker.pipelines import AdapterFile
from t2i_worker.pipelines.ip_adapters import load_ip_adapter

MODELS = ("sdxl", "flux-dev")
COUNT, CAP = 16, 4
WITHIN_S = 300.0
ROUNDING = 1  # of 255: a batch rounds in another order
STYLE = Drawing(adapters=(ScaledAdapter("style", 1.0),))
SHOWN = DecodedImages(ip_adapter=ComponentPicture("face", sample_image(40, 24), 0.9))
PARTS = ((PLAIN, NO_PICTURES), (STYLE, NO_PICTURES), (PLAIN, SHOWN), (STYLE, SHOWN))
Pixels = np.ndarray[Any, np.dtype[np.uint8]]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, TinyEngine]:
    """Their adapters have the same names, as those of two models may."""
    folder = tmp_path_factory.mktemp("two-models")
    return {name: loaded(name, save_family(name, folder / name)) for name in MODELS}


def loaded(name: str, folder: Path) -> TinyEngine:
    style = AdapterFile("style", save_adapter(folder, folder / "style", seed=1, texts=True))
    model, face = TinyEngine(name, folder, adapters=[style]), save_ip_adapter(folder, folder / "face")
    load_ip_adapter(model.pipeline, "face", IpAdapterFiles(face / WEIGHTS, face / ENCODER))
    return model


def jobs_of(model: TinyEngine) -> Sequence[Job]:
    requests = (
        TinyRequest(seed=seed, steps=2 + seed % 3, drawing=drawing, images=images)
        for seed, (drawing, images) in enumerate(PARTS * (COUNT // len(PARTS)))
    )
    return [model.job(request) for request in requests]


def leaves(job: Job) -> bool:
    """Every fifth does, so one of each kind."""
    return job.seed % 5 == 0


async def drawn(engine: DiffusionEngine, job: Job, early: bool = False) -> Pixels | None:
    """None if it left early: after its first step."""
    async with asyncio.timeout(WITHIN_S), aclosing(engine.generate(job)) as events:
        async for event in events:
            if early and isinstance(event, Progress):
                return None
            if isinstance(event, Image):
                return np.asarray(Pillow.open(io.BytesIO(event.data)))
    raise AssertionError("no image")


async def alone(model: TinyEngine) -> Sequence[Pixels | None]:
    engine = model.diffusion_engine(CAP, queue_cap=COUNT)
    images = [await drawn(engine, job) for job in jobs_of(model)]
    await engine.close()
    return images


async def emptied(engine: DiffusionEngine) -> None:
    """Those who left give their places back."""
    async with asyncio.timeout(WITHIN_S):
        while engine.load().running + engine.load().waiting:
            await engine.changed()


async def test_requests_of_both_draw_what_they_draw_alone(models: Mapping[str, TinyEngine]) -> None:
    """Twice: the second engines find the models as requests that left have left them."""
    expected = {name: await alone(model) for name, model in models.items()}
    for _ in range(2):
        engines = {name: model.diffusion_engine(CAP, queue_cap=COUNT) for name, model in models.items()}
        asked = [
            (name, job)
            for jobs in zip(*map(jobs_of, models.values()), strict=True)
            for name, job in zip(MODELS, jobs, strict=True)
        ]
        images = await asyncio.gather(*(drawn(engines[name], job, leaves(job)) for name, job in asked))
        for (name, job), image in zip(asked, images, strict=True):
            whole = expected[name][job.seed]
            assert whole is not None
            if leaves(job):
                assert image is None
                continue
            assert image is not None
            assert np.abs(image.astype(np.int16) - whole).max() <= ROUNDING, (name, job.seed)
        for engine in engines.values():
            await emptied(engine)
            await engine.close()


async def test_each_kind_of_request_draws_an_image_of_its_own(models: Mapping[str, TinyEngine]) -> None:
    """Otherwise the test above would see no adapter that acts on another's request."""
    for model in models.values():
        engine = model.diffusion_engine(CAP, queue_cap=COUNT)
        kinds = [
            await drawn(engine, model.job(TinyRequest(seed=1, drawing=drawing, images=images)))
            for drawing, images in PARTS
        ]
        await engine.close()
        found = {one.tobytes() for one in kinds if one is not None}
        assert len(found) == len(PARTS)
