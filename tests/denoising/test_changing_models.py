"""Real models change places inside one process: images stay what they are, and nothing is left behind."""

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from t2i_api.parse import parse_pool
from t2i_policy.level import Level
from t2i_worker import start_diffusion
from t2i_worker.__main__ import make_engine
from t2i_worker.engine.step_loop import StepLoop
from t2i_worker.held_model import HeldModel
from t2i_worker.jobs import Finished, Image, Job, Sink
from t2i_worker.pipelines import LoadedPipeline
from t2i_worker.settings import parse_arguments
from t2i_worker.warm_model import load_warm_model

POOL = """
apiVersion: t2iserving.dev/v1alpha1
kind: T2IServingPool
metadata: {{name: two}}
spec:
  model: {{source: "file://{sd}", numInferenceSteps: 4, guidanceScalePercent: 300, width: 48, height: 32,
          precision: fp32}}
  levels: [{{skippedSteps: 0}}, {{skippedSteps: 2}}]
  mix: {{moves: Reload}}
  workerGroups:
  - {{name: large, workers: 1}}
  - {{name: small, workers: 1, model: {{name: flux, source: "file://{flux}", numInferenceSteps: 3}}}}
"""
WITHIN_S = 300.0
Make = Callable[[str], Awaitable[HeldModel]]
MODELS = {"large": "", "small": "flux"}


@pytest.fixture
def make(model_folder: Callable[..., Path], tmp_path: Path) -> Make:
    """`await make(group)`: a worker's engine, warm."""
    document = POOL.format(sd=model_folder("sd"), flux=model_folder("flux"))
    (tmp_path / "pool.yaml").write_text(document)
    pool = parse_pool(document)
    groups = {group.name: group for group in pool.spec.worker_groups}

    async def made(group: str) -> HeldModel:
        store = ["--store", f"file://{tmp_path}/latents-{group}", "--own-store"]
        arguments = ["--pool", str(tmp_path / "pool.yaml"), "--group", group, "--name", group, "--max-batch", "1"]
        return await make_engine(parse_arguments([*arguments, *store]), pool, groups[group])

    return made


@pytest.fixture
async def held(make: Make) -> AsyncIterator[HeldModel]:
    one = await make("large")
    yield one
    await one.close()


def job(model: str, seed: int = 3) -> Job:
    return Job("id", "a red circle", "", seed, 3.0, Level(0, 3 if model else 4, model=model), "png")


async def image(held: HeldModel, model: str) -> bytes:
    return b"".join([event.data async for event in held.generate(job(model)) if isinstance(event, Image)])


async def change(held: HeldModel, model: str, revision: int) -> None:
    held.hold(model, revision)
    async with asyncio.timeout(WITHIN_S):
        while (held.load().model, held.load().ready) != (model, True):
            await held.changed()


@pytest.mark.parametrize("room", [True, False])
async def test_images_are_those_of_a_fresh_worker(
    make: Make, held: HeldModel, room: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a change, and after one back, whether the other stays in memory or not. They are equal to the byte."""
    fresh = await make("small")
    expected = {"": await image(held, ""), "flux": await image(fresh, "flux")}
    digests = {"": held.facts.model_digest, "flux": fresh.facts.model_digest}
    await fresh.close()
    monkeypatch.setattr(start_diffusion, "fits_another", lambda *_: room)
    for revision, model in enumerate(["flux", "", "flux"]):
        await change(held, model, revision)
        assert await image(held, model) == expected[model]
        assert (held.facts.model, held.facts.model_digest) == (model, digests[model])
    assert held.tally.reloads == ({"loaded": 1, "kept": 2} if room else {"loaded": 3})


async def test_requests_in_flight_are_drawn_by_the_model_that_took_them(held: HeldModel) -> None:
    """Running and waiting ones; their images are those of a worker that is left alone."""
    alone = [await image(held, ""), await image(held, "")]
    assert alone[0] == alone[1]
    drawing = [asyncio.create_task(image(held, "")) for _ in range(4)]
    async with asyncio.timeout(WITHIN_S):
        while held.load().running + held.load().waiting < 4:
            await held.changed()
    await change(held, "flux", 1)
    assert await asyncio.gather(*drawing) == [alone[0]] * 4


def alive() -> dict[str, int]:
    gc.collect()
    objects = [type(one) for one in gc.get_objects()]
    return {kind.__name__: objects.count(kind) for kind in (LoadedPipeline, StepLoop)}


@pytest.mark.parametrize("room", [True, False])
async def test_twenty_changes_leave_nothing_behind(
    held: HeldModel, room: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No threads, engines or weights beyond those that are held."""
    monkeypatch.setattr(start_diffusion, "fits_another", lambda *_: room)
    before = alive()
    for revision in range(2):
        await change(held, MODELS["small"] if revision % 2 == 0 else "", revision)
    threads = threading.active_count()
    for revision in range(2, 20):
        await change(held, MODELS["small"] if revision % 2 == 0 else "", revision)
        await image(held, held.facts.model)
    after = alive()
    assert after["StepLoop"] == before["StepLoop"]
    assert after["LoadedPipeline"] == before["LoadedPipeline"] + room
    assert threading.active_count() <= threads + 4  # those of the request that was drawn last


async def test_models_that_do_not_fit_together_are_unloaded_first(
    held: HeldModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where memory runs out beside the one before, the load is tried once more without it."""
    at_load: list[int] = []

    async def loading(*args: object) -> object:
        at_load.append(alive()["LoadedPipeline"])
        if len(at_load) == 1:
            raise MemoryError("no room")
        return await load_warm_model(*args)  # type: ignore[arg-type]

    before = alive()["LoadedPipeline"]
    monkeypatch.setattr(start_diffusion, load_warm_model.__name__, loading)
    await change(held, "flux", 1)
    assert at_load == [before, before - 1]
    assert held.tally.reloads == {"loaded": 1}


async def test_latents_of_the_own_store_stay(held: HeldModel) -> None:
    """Stored before the change, offered meanwhile, used after the change back. The other model adds none."""
    sink = Sink("tenant", "entry", np.ones(4, np.float32))
    with_sink = [replace(job(model), sink=sink) for model in ("", "flux")]
    first = [event async for event in held.generate(with_sink[0])][-1]
    assert isinstance(first, Finished)
    assert len(first.stored) == 1
    await change(held, "flux", 1)
    store = held.own_latents
    assert store is not None
    assert store.num_entries == 1
    other = [event async for event in held.generate(with_sink[1])][-1]
    assert isinstance(other, Finished)
    assert (other.stored, store.num_entries, held.tally.latents_not_kept) == ((), 1, {"OtherModel": 1})
    await change(held, "", 2)
    assert store.num_entries == 1
