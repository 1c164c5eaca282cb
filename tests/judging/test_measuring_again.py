"""Profiles that take hours: interrupted and gone on with, as long as the error asks for, beside live requests."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from rich.console import Console
from rich.progress import Progress

from t2i_policy.level import Level, build_ladder
from t2i_profiler.bands import Scored, largest_error, prompts_needed
from t2i_profiler.errors import MeasurementFailed, SamplesInvalid
from t2i_profiler.images import Sample
from t2i_profiler.journal import Journal
from t2i_profiler.judges.judge import JudgeCard, JudgedImage, Scale
from t2i_profiler.measure import PILOT_PROMPTS, Asking, ProfileTools, measure, measure_variant
from t2i_profiler.sample_file import Measurement
from t2i_profiler.samples import Samples
from t2i_profiler.worker_client import Variant, WorkerClient, connect_workers
from t2i_protos.v1 import level_pb2, worker_pb2, worker_pb2_grpc
from t2i_scenes import embedder_path
from t2i_sources.embedder import Embedder

WITHIN_S = 60.0  # guards against hanging only
EXACT, SKIP, SHORT = Level(0, 12), Level(3, 12), Level(0, 6)
LADDER = build_ladder(12, [EXACT, SKIP, SHORT])
COLOURS = ("red", "green", "blue", "yellow", "purple", "orange")
KEPT = tuple(Sample(f"a {one} circle on a {other} wall", at) for at, one in enumerate(COLOURS) for other in COLOURS)
RINGS = [f"a {one} ring on a {other} wall" for one in COLOURS for other in COLOURS]
ASKED = tuple(Sample(prompt, 3 * at) for at, prompt in enumerate(RINGS))
SAMPLES = Samples(KEPT, ASKED)


async def until(look: Callable[[], bool]) -> None:
    """Let others run until it holds."""
    async with asyncio.timeout(WITHIN_S):
        while not look():  # noqa: ASYNC110 - what is looked at is a plain number
            await asyncio.sleep(0)


class DrawingWorker(worker_pb2_grpc.WorkerServicer):
    """Draws text: the level and the seed. It fails when it has drawn `fails_at` images, and takes longer each time."""

    def __init__(self) -> None:
        self.drawn = 0
        self.fails_at = 1 << 30
        self.device = "played"
        self.orders: list[worker_pb2.WorkerGenerateRequest] = []

    async def Describe(self, request: Any, context: Any) -> worker_pb2.WorkerDescription:
        return worker_pb2.WorkerDescription(model_digest="digest", device=self.device, num_inference_steps=12)

    async def WatchLoad(self, request: Any, context: Any) -> AsyncIterator[worker_pb2.WorkerLoad]:
        yield worker_pb2.WorkerLoad(ready=True, batch_cap=2)

    async def Generate(self, request: Any, context: Any) -> AsyncIterator[worker_pb2.WorkerEvent]:
        if self.drawn >= self.fails_at:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "draining")
        self.drawn += 1
        self.orders.append(request)
        image = f"{request.level.skipped_steps} {request.level.num_inference_steps} {request.seed}".encode()
        yield worker_pb2.WorkerEvent(chunk=level_pb2.ImageChunk(data=image))
        took = 20.0 + self.drawn
        yield worker_pb2.WorkerEvent(finished=worker_pb2.Finished(served=request.level, denoise_ms=took, encode_ms=1.0))


class NoisyJudge:
    """Skips lose more or less, by the seed."""

    card = JudgeCard("noisy", "test", "1", Scale())

    async def score(self, images: Sequence[JudgedImage]) -> list[float]:
        return [self._score(*map(int, one.image.split())) for one in images]

    def _score(self, skipped: int, steps: int, seed: int) -> float:
        return 0.8 - 0.01 * skipped * (1 + seed * 7 % 5) - 0.01 * (12 - steps)

    async def close(self) -> None:
        """Nothing to end."""


@pytest.fixture
async def worker() -> AsyncIterator[tuple[str, DrawingWorker]]:
    played, server = DrawingWorker(), grpc.aio.server()
    worker_pb2_grpc.add_WorkerServicer_to_server(played, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}", played
    await server.stop(None)


async def measured(address: str, journal: Journal, error: float = 0.0) -> Measurement:
    with Progress(console=Console(quiet=True)) as bar:
        keep, journal.keep_picture = journal.keep_picture, lambda name, image: None  # type: ignore[method-assign]
        tools = ProfileTools(
            Embedder(embedder_path()), [NoisyJudge()], bar, journal, distance=lambda one, other: float(one != other)
        )
        (found,) = await measure([address], SAMPLES, LADDER, tools, Asking(2, error))
        journal.keep_picture = keep  # type: ignore[method-assign]
        return found


async def test_an_interrupted_measurement_ends_with_the_same_numbers(
    worker: tuple[str, DrawingWorker], tmp_path: Path
) -> None:
    """What was done is not drawn again, timings among it; the last line of the journal may be half written."""
    address, played = worker
    played.fails_at = 150
    with pytest.raises(MeasurementFailed, match="UNAVAILABLE: worker: draining"):
        await measured(address, Journal.open(tmp_path / "j", {"judges": ["noisy"]}))
    played.fails_at = 1 << 30
    path = tmp_path / "j" / "journal.jsonl"
    done = len(path.read_text().splitlines()) - 1
    assert 5 < done < len(ASKED)
    with path.open("a") as file:
        file.write('{"key": "asked-35", "val')
    again = Journal.open(tmp_path / "j", {"judges": ["noisy"]})
    assert again.begun
    timed = again.found("steps")
    before = played.drawn
    found = await measured(address, again)
    assert played.drawn - before < (len(ASKED) - done + 2) * 6 + len(KEPT)
    assert list(found.facts.step_s) == timed["stepSeconds"]
    whole = await measured(address, Journal())
    assert found.prompts == whole.prompts
    keys = [json.loads(line).get("key") for line in path.read_text().splitlines()]
    assert len(keys) == len({*keys}) == len(ASKED) + 4, "each thing once: header, model, steps, costs, prompts"
    played.device = "another"
    with pytest.raises(SamplesInvalid, match="begun with model digest on played, the workers have digest on another"):
        await measured(address, again)
    again.end()
    assert not path.exists()


async def test_a_journal_of_another_measurement_is_refused(tmp_path: Path) -> None:
    """By another judge above all: the two would be mixed."""
    Journal.open(tmp_path / "j", {"judges": ["noisy 1"], "seeds": 2})
    with pytest.raises(SamplesInvalid, match="unfinished profile with other judges: go on with the options of then"):
        Journal.open(tmp_path / "j", {"judges": ["noisy 2"], "seeds": 2})


async def test_as_many_prompts_as_the_error_takes(worker: tuple[str, DrawingWorker]) -> None:
    """A pilot, then what its spread asks for; never more than there are."""
    pilot = await measured(worker[0], Journal(), error=0.5)
    assert len(pilot.prompts) == PILOT_PROMPTS
    wanted = 0.75 * largest_error([one.scored() for one in pilot.prompts])
    some = await measured(worker[0], Journal(), error=wanted)
    assert PILOT_PROMPTS < len(some.prompts) < len(ASKED)
    assert largest_error([one.scored() for one in some.prompts]) <= wanted
    everything = await measured(worker[0], Journal(), error=1e-6)
    assert len(everything.prompts) == len(ASKED)


def test_prompts_needed_for_a_standard_error() -> None:
    """Spread over error, squared; the level that spreads most decides."""
    scored = [Scored(0.9, 1.0, {SKIP: 0.9 if at % 2 else 0.7, SHORT: 0.95}) for at in range(20)]
    spread = 0.1 * (20 / 19) ** 0.5
    assert prompts_needed(scored, 0.01) == int((spread / 0.01) ** 2) + 1
    assert prompts_needed([], 0.01) == 0


async def test_variants_are_drawn_from_latents_of_their_own(worker: tuple[str, DrawingWorker]) -> None:
    """Size and adapter are in every order, those whose latents are kept among them."""
    address, played = worker
    few = Samples(KEPT, ASKED[:8])
    with Progress(console=Console(quiet=True)) as bar:
        tools = ProfileTools(Embedder(embedder_path()), [NoisyJudge()], bar)
        found = await measure_variant([address], few, LADDER, tools, Asking(1, variant=Variant(96, 64, "ink")))
    assert (found.width, found.height, found.adapter) == (96, 64, "ink")
    assert {band.level for band in found.losses} == {SKIP, SHORT}
    assert {band.num_samples for band in found.losses} == {8}
    assert {(one.width, one.height, one.drawing.adapters[0].name) for one in played.orders} == {(96, 64, "ink")}
    kept = {one.sink.entry_id for one in played.orders} - {""}
    assert {one.source.entry_id for one in played.orders if one.level.skipped_steps} == kept


class BusyWorker(worker_pb2_grpc.WorkerServicer):
    """Serves others, from the start and until told otherwise. Its images end when `finish` is set."""

    def __init__(self) -> None:
        self.others = 1
        self.reports = 0
        self.ours = 0
        self.begun = 0
        self.cancelled = 0
        self.changed = asyncio.Condition()
        self.finish = asyncio.Event()

    async def tell(self, others: int) -> None:
        """So many requests of others draw now."""
        async with self.changed:
            self.others = others
            self.changed.notify_all()

    async def Describe(self, request: Any, context: Any) -> worker_pb2.WorkerDescription:
        return worker_pb2.WorkerDescription(num_inference_steps=12)

    async def WatchLoad(self, request: Any, context: Any) -> AsyncIterator[worker_pb2.WorkerLoad]:
        while True:
            self.reports += 1
            told = self.others + self.ours
            yield worker_pb2.WorkerLoad(ready=True, batch_cap=4, running=told)
            async with self.changed:
                await self.changed.wait_for(lambda: self.others + self.ours != told)  # noqa: B023 - waited for at once

    async def Generate(self, request: Any, context: Any) -> AsyncIterator[worker_pb2.WorkerEvent]:
        self.begun += 1
        await self._count(1)
        try:
            await self.finish.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            await self._count(-1)
        yield worker_pb2.WorkerEvent(chunk=level_pb2.ImageChunk(data=b"image"))
        yield worker_pb2.WorkerEvent(finished=worker_pb2.Finished())

    async def _count(self, more: int) -> None:
        async with self.changed:
            self.ours += more
            self.changed.notify_all()


@pytest.fixture
async def busy() -> AsyncIterator[tuple[BusyWorker, WorkerClient]]:
    played, server = BusyWorker(), grpc.aio.server()
    worker_pb2_grpc.add_WorkerServicer_to_server(played, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with connect_workers([f"127.0.0.1:{port}"], yields=True) as (client,):
        yield played, client
    await server.stop(None)


async def test_measuring_gives_way_to_live_requests(busy: tuple[BusyWorker, WorkerClient]) -> None:
    """Nothing is begun while others draw; what is begun is cancelled when somebody comes, and drawn again later."""
    played, client = busy
    drawing = asyncio.create_task(client.draw(client.order("a ring", 1, EXACT)))
    waiting = asyncio.create_task(client.draw(client.order("a ring", 2, EXACT)))
    await played.tell(2)
    await until(lambda: played.reports > 2)
    assert played.begun == 0
    await played.tell(0)
    await until(lambda: played.ours == 1)
    assert played.begun == 1, "one at a time"
    await played.tell(1)
    await until(lambda: played.cancelled == 1)
    await until(lambda: played.ours == 0)
    assert (played.begun, client.given_way) == (1, 1)
    await played.tell(0)
    await until(lambda: played.ours == 1)
    played.finish.set()
    assert (await drawing).data == (await waiting).data == b"image"
    assert played.begun == 3


async def test_a_pool_without_room_is_told(
    busy: tuple[BusyWorker, WorkerClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not waited for: what was measured is in the journal."""
    monkeypatch.setattr("t2i_profiler.room.ROOM_LIMIT_S", 0.05)
    _, client = busy
    with pytest.raises(MeasurementFailed, match="no room on a worker for an hour"):
        await client.draw(client.order("a ring", 1, EXACT))
