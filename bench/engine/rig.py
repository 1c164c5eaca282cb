"""The embedded model in an engine and in a bare loop, and jobs for both."""

import itertools
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.kit.output import say
from bench.kit.places import example_spec
from t2i_cache.stores.memory import MemoryStore
from t2i_policy.level import Level
from t2i_scenes import caption, sample_scene
from t2i_scenes.sampling import ScenesModel
from t2i_worker.engine.batching import WarmUpTimes
from t2i_worker.engine.diffusion import DiffusionEngine
from t2i_worker.engine.warm_up import warm_up
from t2i_worker.jobs import Finished, Job, Sink, Source
from t2i_worker.latents import LatentCache
from t2i_worker.pipelines import LoadedPipeline, load_pipeline
from t2i_worker.starting import find_model
from t2i_worker.warm_model import to_facts

BATCH = 4
ids = itertools.count()


class EngineRig:
    """The loaded model, its measured times, and captions."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        torch.set_num_threads(threads)
        self.spec = example_spec("pool-scenes")
        model = self.spec.model
        folder = find_model(model, Path("models"))
        self.pipeline: LoadedPipeline = load_pipeline(folder, model.precision, model.width, model.height, "cpu")
        self.times = warm_up(self.pipeline, model.guidance_scale, 8, say)
        self.bare = ScenesModel.load(folder)
        self.steps = model.num_inference_steps
        self.skips = [level.skipped_steps for level in self.spec.ladder.levels if level.needs_latent]
        rng = np.random.default_rng(3)
        self.captions = [caption(sample_scene(rng), rng) for _ in range(256)]

    def engine(self, cap: int, queue_cap: int | None = None) -> DiffusionEngine:
        step_s = (self.times.step_s + self.times.step_s[-1:] * cap)[:cap]
        facts = to_facts(self.pipeline, self.spec.model, "bench", self.times)
        latents = LatentCache(MemoryStore(), facts)
        return DiffusionEngine(self.pipeline, facts, WarmUpTimes(cap, step_s, self.times.fixed_s), latents, queue_cap)

    def job(self, skipped: int = 0, sink: bool = False) -> Job:
        number = next(ids)
        return Job(
            request_id=str(number),
            prompt=self.captions[number % len(self.captions)],
            negative_prompt="",
            seed=number,
            guidance_scale=self.spec.model.guidance_scale,
            level=Level(skipped, self.steps),
            image_format="png",
            source=Source("bench", "entry") if skipped else None,
            sink=Sink("bench", "entry", np.ones(4, np.float32)) if sink else None,
        )


async def draw(engine: DiffusionEngine, job: Job) -> Finished:
    last = None
    async for event in engine.generate(job):
        last = event
    assert isinstance(last, Finished)
    assert last.served == job.level, f"asked {job.level}, served {last.served}"
    return last


async def timed(work: Coroutine[Any, Any, Finished]) -> float:
    began = time.perf_counter()
    await work
    return time.perf_counter() - began
