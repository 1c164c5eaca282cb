"""`t2ictl profile --search`: which steps to compute, found on a worker that scores sets by a rule of its own."""

from collections.abc import AsyncIterator, Sequence

import grpc
import pytest
from rich.console import Console
from rich.progress import Progress

from t2i_policy.level import Level
from t2i_profiler.candidates import candidate_levels, find_refused
from t2i_profiler.errors import SamplesInvalid
from t2i_profiler.images import Sample
from t2i_profiler.judges.judge import JudgeCard, JudgedImage, Scale
from t2i_profiler.mask_search import MAX_MASKS, Mask, best_mask, even_masks, mask_of, next_masks, to_level
from t2i_profiler.measure import ProfileTools
from t2i_profiler.search import FoundSteps, check_budget, search_steps
from t2i_protos.v1 import level_pb2, worker_pb2, worker_pb2_grpc
from t2i_scenes import embedder_path
from t2i_sources.embedder import Embedder

N = 12
ASKED = tuple(Sample(f"{number} red circles", number) for number in range(6))


def search(wanted: Mask, budget: int, num_steps: int = N) -> dict[Mask, float]:
    """Measure by the distance to the wanted set, until the search is over."""
    measured: dict[Mask, float] = {}
    while masks := next_masks(measured, budget, num_steps):
        measured |= {mask: sum(abs(a - b) for a, b in zip(mask, wanted, strict=True)) for mask in masks}
    return measured


@pytest.mark.parametrize("wanted", [(0, 1, 3, 8), (0, 1, 2, 3), (0, 1, 10, 11)])
def test_the_search_finds_a_set_that_it_did_not_begin_with(wanted: Mask) -> None:
    measured = search(wanted, 4)
    assert wanted not in even_masks(4, N)
    assert best_mask(measured) == wanted
    assert search(wanted, 4) == measured, "the same measurements lead to the same sets"


@pytest.mark.parametrize(("budget", "num_steps"), [(3, 12), (5, 12), (11, 12), (4, 5), (20, 50), (40, 50), (64, 1000)])
def test_every_set_is_one_that_a_level_may_name(budget: int, num_steps: int) -> None:
    measured = search(tuple(range(budget)), budget, num_steps)
    assert {Level(0, num_steps, computed_steps=mask).cost for mask in measured} == {budget}
    assert len(measured) <= MAX_MASKS


def test_a_set_that_forecast_names_is_called_so() -> None:
    assert to_level(mask_of(Level(0, N, forecast=3)), N) == Level(0, N, forecast=3)
    assert to_level((0, 1, 4, 8), N) == Level(0, N, computed_steps=(0, 1, 4, 8))


@pytest.mark.parametrize(("budget", "steps"), [(2, 12), (12, 12), (3, 4)])
def test_a_budget_that_cannot_be_searched_is_refused(budget: int, steps: int) -> None:
    with pytest.raises(SamplesInvalid, match="--search must be from 3 to numInferenceSteps - 1"):
        check_budget(budget, steps)


class PickyWorker(worker_pb2_grpc.WorkerServicer):
    """Its image is the level's computed steps. It draws nothing with another solver."""

    async def Describe(self, request, context):  # type: ignore[no-untyped-def]
        return worker_pb2.WorkerDescription(num_inference_steps=N)

    async def WatchLoad(self, request, context):  # type: ignore[no-untyped-def]
        yield worker_pb2.WorkerLoad(ready=True, batch_cap=2)

    async def Generate(self, request, context):  # type: ignore[no-untyped-def]
        if request.level.solver:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "level.solver: makes no schedule")
        image = " ".join(map(str, request.level.computed_steps))
        yield worker_pb2.WorkerEvent(chunk=level_pb2.ImageChunk(data=image.encode()))
        yield worker_pb2.WorkerEvent(finished=worker_pb2.Finished(served=request.level, denoise_ms=1.0))


class SetJudge:
    """Exact scores best; else the nearer to the wanted set the better, and no prompt is like another."""

    def __init__(self, wanted: Mask, noise: float = 0.0) -> None:
        self._wanted, self._noise = wanted, noise
        self.card = JudgeCard("set", "test", "1", Scale(-10, 10) if noise else Scale())

    async def score(self, images: Sequence[JudgedImage]) -> list[float]:
        return [self._score(one.image, one.sample) for one in images]

    def _score(self, image: bytes, sample: Sample) -> float:
        steps = [int(step) for step in image.split()]
        if not steps:
            return 0.9
        off = sum(abs(a - b) for a, b in zip(steps, self._wanted, strict=True))
        return 0.8 - 0.01 * off + (self._noise if sample.seed % 2 else -self._noise) * sum(steps)

    async def close(self) -> None:
        """Nothing to end."""


@pytest.fixture
async def picky() -> AsyncIterator[str]:
    server = grpc.aio.server()
    worker_pb2_grpc.add_WorkerServicer_to_server(PickyWorker(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


async def found_by(address: str, judge: SetJudge) -> FoundSteps:
    with Progress(console=Console(quiet=True)) as bar:
        tools = ProfileTools(Embedder(embedder_path()), [judge], bar)
        return await search_steps([address], ASKED, Level(0, N), tools, 4)


async def test_the_best_set_is_found_on_workers(picky: str) -> None:
    found = await found_by(picky, SetJudge((0, 1, 3, 8)))
    assert found.level == Level(0, N, computed_steps=(0, 1, 3, 8))
    assert found.loss == pytest.approx(0.1 / 0.9)
    assert found.even_loss > found.loss
    assert "lost 11.1%" in found.sentence


async def test_a_lead_within_its_error_is_not_taken(picky: str) -> None:
    """Half of the prompts like late steps, the others early ones: what is best on average may be chance."""
    found = await found_by(picky, SetJudge((0, 1, 3, 8), noise=0.1))
    assert found.level == found.even
    assert "is not taken" in found.sentence


async def test_levels_that_the_model_does_not_draw_are_told(picky: str) -> None:
    candidates = candidate_levels(N)
    refused = await find_refused([picky], candidates)
    assert {one.level for one in refused} == {level for level in candidates if level.solver}
    assert all("makes no schedule" in one.reason for one in refused)


@pytest.mark.parametrize("steps", [1, 2, 4, 5, 8, 12, 28, 50])
def test_candidates_fit_any_schedule(steps: int) -> None:
    """Few-step models too."""
    found = candidate_levels(steps)
    assert Level(0, steps) in found
    assert len(found) == len({*found})
