"""Drawing for a profile, against a worker that only keeps books: what it is asked, and what becomes of the scores."""

from collections.abc import AsyncIterator, Sequence

import grpc
import pytest
from rich.console import Console
from rich.progress import Progress

from t2i_policy.level import Level, build_ladder
from t2i_profiler.images import Sample
from t2i_profiler.journal import Journal
from t2i_profiler.judges.judge import JudgeCard, JudgedImage, Scale
from t2i_profiler.measure import Asking, ProfileTools, measure
from t2i_profiler.measure_twins import TwinPair, measure_twins
from t2i_profiler.precision import profile_of
from t2i_profiler.samples import Samples
from t2i_profiler.twins import Twin, TwinKind
from t2i_protos.v1 import level_pb2, worker_pb2, worker_pb2_grpc
from t2i_scenes import embedder_path
from t2i_sources.embedder import Embedder

LADDER = build_ladder(12, [Level(0, 12), Level(3, 12), Level(9, 12), Level(0, 6)])
KEPT = (Sample("a red circle on a blue wall", 10), Sample("three green rings on a plain white wall", 20))
ASKED = (Sample("a scarlet circle on a blue wall", 30), Sample("three green rings on a flat white wall", 40))


class BookKeeper(worker_pb2_grpc.WorkerServicer):
    """Answers every order at once with its level as the image; a skip without its latent starts lower, as real ones."""

    def __init__(self) -> None:
        self.orders: list[worker_pb2.WorkerGenerateRequest] = []
        self.stored: set[str] = set()

    async def Describe(self, request, context):  # type: ignore[no-untyped-def]
        return worker_pb2.WorkerDescription(model_digest="digest", device="books", num_inference_steps=12)

    async def WatchLoad(self, request, context):  # type: ignore[no-untyped-def]
        yield worker_pb2.WorkerLoad(ready=True, batch_cap=2)

    async def Generate(self, request, context):  # type: ignore[no-untyped-def]
        self.orders.append(request)
        self.stored.add(request.sink.entry_id)
        served, skipped = request.level, request.level.skipped_steps
        if skipped and request.source.entry_id not in self.stored:
            served.skipped_steps = 0
        image = f"{skipped} {request.level.num_inference_steps} {request.seed}"
        yield worker_pb2.WorkerEvent(chunk=level_pb2.ImageChunk(data=image.encode()))
        yield worker_pb2.WorkerEvent(finished=worker_pb2.Finished(served=served, denoise_ms=24.0, encode_ms=1.0))


class LevelJudge:
    """Scores by the level drawn and, a little, by the seed; the exact image must be of the same seed."""

    card = JudgeCard("level", "test", "1", Scale(0, 110))

    async def score(self, images: Sequence[JudgedImage]) -> list[float]:
        assert all(one.image.split()[2] == one.exact.split()[2] for one in images)
        return [self._score(one) for one in images]

    def _score(self, one: JudgedImage) -> float:
        skipped, steps, seed = map(int, one.image.split())
        return 100 - 5 * skipped - 2 * (12 - steps) + (seed - one.sample.seed)

    async def close(self) -> None:
        """Nothing to end."""


class StrictJudge(LevelJudge):
    """Another one: a skip costs all."""

    card = JudgeCard("strict", "test", "1", Scale())

    def _score(self, one: JudgedImage) -> float:
        return float(not int(one.image.split()[0]))


def seeds_apart(one: bytes, other: bytes) -> float:
    """Falls with the steps skipped."""
    assert one.split()[:2] == other.split()[:2]
    assert one.split()[2] != other.split()[2]
    return (12 - int(one.split()[0])) / 100


def tools_of(bar: Progress, journal: Journal | None = None, yields: bool = False) -> ProfileTools:
    """With both judges."""
    judges = (LevelJudge(), StrictJudge())
    return ProfileTools(Embedder(embedder_path()), judges, bar, journal or Journal(), yields, distance=seeds_apart)


@pytest.fixture
async def worker() -> AsyncIterator[tuple[str, BookKeeper]]:
    books, server = BookKeeper(), grpc.aio.server()
    worker_pb2_grpc.add_WorkerServicer_to_server(books, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}", books
    await server.stop(None)


async def test_every_level_is_scored_once_a_seed(worker: tuple[str, BookKeeper]) -> None:
    """All seeds resume from the latents of one run of the nearest prompt, as requests do; scores pair up by seed."""
    address, books = worker
    with Progress(console=Console(quiet=True)) as bar:
        found, strict = await measure([address], Samples(KEPT, ASKED), LADDER, tools_of(bar), Asking(2))
    assert (found.facts.model_digest, found.facts.judge.kind, found.facts.base_steps) == ("digest", "level", 12)
    assert strict.facts.judge.kind == "strict"
    assert [one.by_level[Level(9, 12)] for one in strict.prompts] == [(0.0, 0.0)] * 2
    assert [one.by_level[Level(0, 6)] for one in strict.prompts] == [(1.0, 1.0)] * 2
    assert found.facts.step_s == (pytest.approx(0.002), pytest.approx(0.002))
    assert set(found.levels) == {Level(3, 12), Level(9, 12), Level(0, 6)}
    for one, sample, nearest in zip(found.prompts, ASKED, KEPT, strict=True):
        assert (one.prompt, one.nearest) == (sample.prompt, nearest.prompt)
        assert one.similarity > 0.8
        assert one.exact == (pytest.approx(100 / 110), pytest.approx(101 / 110))
        assert one.by_level[Level(9, 12)] == (pytest.approx(55 / 110), pytest.approx(56 / 110))
        assert one.by_level[Level(0, 6)] == (pytest.approx(88 / 110), pytest.approx(89 / 110))
        assert one.exact_spread == pytest.approx(0.12)
        assert one.spreads == {Level(3, 12): 0.09, Level(9, 12): 0.03, Level(0, 6): 0.12}
    kept = [order for order in books.orders if order.sink.entry_id]
    assert {(order.prompt, order.seed) for order in kept} == {(sample.prompt, sample.seed) for sample in KEPT}
    entry_of = {order.prompt: order.sink.entry_id for order in kept}
    assert len(set(entry_of.values())) == len(kept) == 2
    for order in [order for order in books.orders if order.level.skipped_steps]:
        nearest = KEPT[[sample.prompt for sample in ASKED].index(order.prompt)]
        assert order.source.entry_id == entry_of[nearest.prompt]


async def test_diversity_needs_two_seeds(worker: tuple[str, BookKeeper]) -> None:
    """One image a prompt says nothing of how different two would be: it is told as not measured."""
    with Progress(console=Console(quiet=True)) as bar:
        found, _ = await measure([worker[0]], Samples(KEPT, ASKED), LADDER, tools_of(bar), Asking(1))
    assert all(one.spreads == {} for one in found.prompts)
    assert all(band.diversity_loss is None for band in profile_of(found).losses)


async def test_twins_are_scored_from_their_own_latents(worker: tuple[str, BookKeeper]) -> None:
    """The twin is drawn exactly and kept; the prompt starts from it at every level that resumes, once a seed."""
    address, books = worker
    pair = TwinPair(ASKED[1], Twin("two green rings on a flat white wall", TwinKind.RECOUNTED, "three to two"), 70)
    with Progress(console=Console(quiet=True)) as bar:
        (found,), (strict,) = await measure_twins([address], [pair], LADDER, tools_of(bar), Asking(2))
    assert strict.scores.by_level[Level(9, 12)] == (0.0, 0.0)
    assert (found.kind, found.scores.prompt, found.scores.nearest) == ("Recounted", ASKED[1].prompt, pair.twin.prompt)
    assert 0.3 < found.scores.similarity < 0.999
    assert set(found.scores.by_level) == {Level(3, 12), Level(9, 12)}
    assert found.scores.by_level[Level(9, 12)] == (pytest.approx(55 / 110), pytest.approx(56 / 110))
    (kept,) = [order for order in books.orders if order.sink.entry_id]
    assert (kept.prompt, kept.seed) == (pair.twin.prompt, 70)
    resumed = [order for order in books.orders if order.level.skipped_steps]
    assert len(resumed) == 4
    assert {order.source.entry_id for order in resumed} == {kept.sink.entry_id}
