"""What goes wrong in a request stays in it, whatever a library raises and wherever: docs/faults-worker.md row by row.

A tiny model in the whole engine. Each row is a place and an exception; it says the code at the client, what the worker
says of itself afterwards, and whether the next request is drawn.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from google.rpc import code_pb2

from t2i_cache.errors import StoreError
from t2i_cache.keys import LatentKey
from t2i_cache.stores import MemoryStore
from t2i_policy.level import Level
from t2i_testing_kit.tiny_pipelines.families import save_family
from t2i_testing_kit.tiny_pipelines.in_engine import TinyEngine
from t2i_testing_kit.tiny_pipelines.stock import TinyRequest
from t2i_worker.engine import pipeline_run
from t2i_worker.engine.batching import WarmUpTimes
from t2i_worker.engine.diffusion import DiffusionEngine
from t2i_worker.errors import WorkerError
from t2i_worker.jobs import Image, Job, ModelFacts, Sink, Source
from t2i_worker.latents import LatentCache
from t2i_worker.status import to_status

DOC = Path(__file__).parents[2] / "docs" / "faults-worker.md"
FAMILY = "sd21"
WAIT_S = 60.0
EXCEPTIONS: Mapping[str, Callable[[], BaseException]] = {
    "ValueError": lambda: ValueError("of the prompt"),
    "RuntimeError": lambda: RuntimeError("of the prompt"),
    "KeyError": lambda: KeyError("of the prompt"),
    "MemoryError": MemoryError,
    "OutOfMemoryError": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
    "sticky CUDA error": lambda: torch.AcceleratorError("CUDA error: device-side assert triggered"),
    "SystemExit": lambda: SystemExit(1),
    "StoreError": lambda: StoreError("gone"),
}


class Fault:
    """Stands before a call and raises while there is something to raise."""

    def __init__(self) -> None:
        self.raises: Callable[[], BaseException] | None = None

    def before(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def faulty(*args: Any, **kwargs: Any) -> Any:
            if self.raises is not None:
                raise self.raises()
            return call(*args, **kwargs)

        return faulty


class FaultyStore(MemoryStore):
    def __init__(self, fault: Fault, call: str) -> None:
        super().__init__()
        self._fault, self._call = fault, call

    async def get(self, key: LatentKey) -> Any:
        if self._call == "get" and self._fault.raises is not None:
            raise self._fault.raises()
        return await super().get(key)

    async def put(self, key: LatentKey, data: bytes) -> Any:
        if self._call == "put" and self._fault.raises is not None:
            raise self._fault.raises()
        return await super().put(key, data)


def rows() -> list[tuple[str, str, str, str, str]]:
    """Of the page's table: place, exception, code, health, next request."""
    found = []
    for line in DOC.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 5 and cells[2].isupper():
            found += [(cells[0], name, *cells[2:]) for name in re.split(", ", cells[1])]
    return found


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyEngine:
    return TinyEngine(FAMILY, save_family(FAMILY, tmp_path_factory.mktemp("faults") / FAMILY))


@pytest.fixture
def fault_at(tiny: TinyEngine, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Fault]:
    def place(name: str) -> Fault:
        fault, stock = Fault(), tiny.pipeline.stock
        holders = {
            "text": (stock.text_encoder, "forward"),
            "denoiser": (stock.unet.conv_in, "forward"),
            "scheduler": (type(stock.scheduler), "step"),
            "decode": (stock.vae.decoder, "forward"),
            "encode": (pipeline_run, "encode_image"),
        }
        if name in holders:
            holder, call = holders[name]
            monkeypatch.setattr(holder, call, fault.before(getattr(holder, call)))
        return fault

    return place


@pytest.fixture
async def engine_with(tiny: TinyEngine) -> AsyncIterator[Callable[[MemoryStore], DiffusionEngine]]:
    made: list[DiffusionEngine] = []

    def make(store: MemoryStore) -> DiffusionEngine:
        steps, family = tiny.family.steps, tiny.family
        facts = ModelFacts("tiny", "DDIM", "float32", "cpu", steps, 3.0, family.width, family.height, 0, "diffusion")
        made.append(
            DiffusionEngine(tiny.pipeline, facts, WarmUpTimes(2, (0.01, 0.02), 0.001), LatentCache(store, facts))
        )
        return made[-1]

    yield make
    for one in made:
        await one.close()


def job_of(tiny: TinyEngine, place: str) -> Job:
    job = tiny.job(TinyRequest(seed=1))
    sink = Sink("tenant", "entry", np.ones(3, np.float32))
    if place == "store, get":
        source = Source("tenant", "entry")
        return Job(**{**{name: getattr(job, name) for name in job.__slots__}, "level": Level(2, 5), "source": source})
    return Job(**{**{name: getattr(job, name) for name in job.__slots__}, "sink": sink})


async def outcome(engine: DiffusionEngine, job: Job) -> str:
    """The code at the client."""
    drawn = 0
    try:
        async with asyncio.timeout(WAIT_S):
            async for event in engine.generate(job):
                drawn += isinstance(event, Image)
    except WorkerError as error:
        status = to_status(error)
        assert "of the prompt" not in (status.details or "")
        return str(status.code.name)
    assert drawn == 1
    return str(code_pb2.Code.Name(code_pb2.OK))


@pytest.mark.parametrize(("place", "exception", "code", "health", "following"), rows(), ids=lambda cell: cell)
async def test_fault_is_contained(
    place: str,
    exception: str,
    code: str,
    health: str,
    following: str,
    tiny: TinyEngine,
    fault_at: Callable[[str], Fault],
    engine_with: Callable[[MemoryStore], DiffusionEngine],
) -> None:
    fault = fault_at(place)
    store = FaultyStore(fault, place.removeprefix("store, "))
    engine = engine_with(store)
    if place == "store, get":
        assert await outcome(engine, job_of(tiny, "store, put")) == "OK"
    fault.raises = EXCEPTIONS[exception]
    found = [await outcome(engine, job_of(tiny, place)), engine.readiness().reason.value]
    fault.raises = None
    found.append(await outcome(engine, job_of(tiny, "none")))
    assert found == [code, health, following]
    assert engine.load().running + engine.load().waiting == 0


def test_page_has_every_place_and_exception() -> None:
    named = {(place, exception) for place, exception, *_ in rows()}
    places = ("text", "denoiser", "scheduler", "decode", "encode", "store, get", "store, put")
    common = [name for name in EXCEPTIONS if name != "StoreError"]
    assert named >= {(place, name) for place in places for name in common if "store" not in place}
    assert named >= {(place, name) for place in places[-2:] for name in ("ValueError", "StoreError")}
