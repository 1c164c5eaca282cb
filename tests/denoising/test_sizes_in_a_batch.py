"""Images of several sizes in one worker: places of the batch, forwards by size, step times, and what warm-up finds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from scripted_model import ScriptedModel, result
from t2i_api.model import ModelPart
from t2i_policy.image_size import ImageSize, SizeCost
from t2i_protos.v1 import level_pb2, worker_pb2
from t2i_testing_kit.tiny_pipelines.families import save_family
from t2i_worker.engine.batching import SizeTimes, StepTimes, WarmUpTimes, measure_step_cost
from t2i_worker.engine.warm_up import warm_up
from t2i_worker.errors import JobInvalid, ModelUnsupported
from t2i_worker.jobs import ModelFacts
from t2i_worker.pipelines import LoadedPipeline, load_pipeline
from t2i_worker.validation import parse_request
from t2i_worker.warm_model import to_facts

LARGE, SMALL = ImageSize(96, 64), ImageSize(24, 16)
LARGEST = ImageSize(96, 96)
TIMES = WarmUpTimes(
    8,
    tuple(0.01 + 0.01 * batch for batch in range(1, 9)),
    0.001,
    sizes=(SizeTimes(LARGE, 4.0, 2, [0.05, 0.09]), SizeTimes(SMALL, 0.25, 16, [0.02] * 16)),
)
FACTS = ModelFacts(
    "digest", "euler", "float32", "cpu", 4, 3.0, 48, 32, 0, "diffusion", (SizeCost(LARGE, 4.0), SizeCost(SMALL, 0.25))
)


@pytest.fixture
def sized(scripted: Any) -> Callable[[int, float], Any]:
    """A scripted request whose steps cost so much. Its calls fit into no forward with those of another size."""

    def make(weight: int, cost: float) -> Any:
        one = scripted(weight)
        one.request.step_cost = cost
        one.weight = torch.full((1, round(8 * cost)), float(weight))
        return one

    return make


class SizedModel(ScriptedModel):
    """Its batches are told by the first value of each row."""

    def forward(self, arguments: Any, adapters: Any = ()) -> Any:
        return super().forward({**arguments, "weight": arguments["weight"][:, 0]}, adapters)


def test_a_large_image_takes_the_room_of_several(listen: Any, sized: Any) -> None:
    """Two of cost 4 fill a batch of eight; a third and a small one wait for their end."""
    listening = listen(SizedModel(permits=0), 8)
    requests = [sized(weight, cost) for weight, cost in ((1, 4.0), (2, 4.0), (3, 4.0), (4, 0.25))]
    listening.post(*requests)
    listening.loop.start()
    listening.loop._denoiser.wait_until_in_step(1)
    state = listening.loop.state
    assert (state.running, state.waiting, state.steps_left) == (2, 2, round(3 * 12.25))
    listening.loop._denoiser.allow()
    listening.wait_for_end(*requests)
    assert [one.latent for one in requests] == [result(weight) for weight in range(1, 5)]


def test_the_last_place_goes_to_whoever_is_next(listen: Any, sized: Any) -> None:
    """A large one joins beside seven, in a forward of its own; kept for a small one, the place would stand empty."""
    model = SizedModel()
    listening = listen(model, 8)
    requests = [*(sized(weight, 1.0) for weight in range(1, 8)), sized(8, 4.0), sized(9, 1.0)]
    listening.post(*requests)
    listening.loop.start()
    listening.wait_for_end(*requests)
    assert model.batches[:2] == [list(range(1, 8)), [8]]
    assert [one.latent for one in requests] == [result(weight) for weight in range(1, 10)]


def test_forward_of_a_size_is_no_larger_than_its_own_cap(listen: Any, sized: Any) -> None:
    """Its memory was measured up to there; room in the batch says nothing of that."""
    model = SizedModel()
    listening = listen(model, 8)
    listening.loop._times = StepTimes(
        WarmUpTimes(8, TIMES.step_s, 0.001, sizes=(SizeTimes(LARGE, 2.0, 2, [0.05, 0.09]),))
    )
    requests = [sized(weight, 2.0) for weight in range(1, 5)]
    listening.post(*requests)
    listening.loop.start()
    listening.wait_for_end(*requests)
    assert model.batches[:2] == [[1, 2], [3, 4]]


def test_out_of_memory_of_a_large_pair_halves_what_all_sizes_get(listen: Any, sized: Any) -> None:
    """Nobody loses a step; the cap counts places, so half of the room of two large ones is left."""
    model = SizedModel(breaks=lambda weights: MemoryError() if len(weights) > 1 else None)
    listening = listen(model, 8)
    listening.loop._times = StepTimes(TIMES)
    requests = [sized(weight, 4.0) for weight in (1, 2, 3)]
    listening.post(*requests)
    listening.loop.start()
    listening.wait_for_end(*requests)
    assert [one.latent for one in requests] == [result(weight) for weight in (1, 2, 3)]
    assert (listening.loop.state.batch_cap, listening.tally.out_of_memory) == (4, 1)


def test_mixed_step_is_held_against_the_sum_of_its_sizes() -> None:
    """And teaches nothing; a step of one size teaches that size alone."""
    times = StepTimes(TIMES)
    assert times.usual_s({1.0: 3, 4.0: 1, 0.25: 2}) == pytest.approx(0.04 + 0.05 + 0.02)
    assert times.usual_s({5.0: 1}) == pytest.approx(0.05 * 5 / 4), "between measured sizes by what a step costs"
    times.learn(4.0, 1, 0.06)
    assert times.usual_s({4.0: 1}) == pytest.approx(0.051)
    assert times.default_s == list(TIMES.step_s)
    assert StepTimes(TIMES).usual_s({4.0: 1}) == 0.05, "what warm-up measured stays"


def test_cost_is_of_a_full_batch_or_of_an_image_alone_whichever_is_more() -> None:
    default_s = (0.1, 0.15, 0.2, 0.25)
    assert measure_step_cost({1: 0.5, 2: 0.98}, default_s) == pytest.approx(0.5 / 0.0625)
    assert measure_step_cost({1: 0.09, 2: 0.1, 4: 0.11, 8: 0.12}, default_s) == pytest.approx(1 - 0.01 / 0.0625)
    assert measure_step_cost({1: 0.05, 2: 0.06, 4: 0.08, 8: 0.12}, default_s) == pytest.approx(0.12 / 8 / 0.0625)


@pytest.mark.parametrize("family", ["sd15", "pixart-sigma", "flux-dev", "sana"])
def test_warm_up_draws_and_measures_each_size(family: str, tmp_path: Path) -> None:
    """Also where the pipeline would draw a near size and resize: the image is of the size that was asked for."""
    pipeline = load_pipeline(save_family(family, tmp_path), "fp32", 64, 32, "cpu")
    times = warm_up(pipeline, 3.0, 2, lambda _: None, sizes=(ImageSize(32, 32), ImageSize(64, 96)))
    assert [one.size for one in times.sizes] == [ImageSize(32, 32), ImageSize(64, 96)]
    assert all(one.step_cost > 0 and len(one.step_s) == one.cap for one in times.sizes)


def test_size_is_drawn_though_others_took_long_to_measure(
    model_folder: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pool tells clients of all its sizes, whatever warm-up had time for. One that had none runs alone."""
    monkeypatch.setattr("t2i_worker.engine.warm_up.FURTHER_LIMIT_S", 0.0)
    pool = pool_of_sizes(model_folder("sd"))
    pipeline = load_pipeline(model_folder("sd"), "fp32", 48, 32, "cpu")
    times = warm_up(pipeline, 3.0, 4, lambda _: None, sizes=pool.measured_sizes[1:])
    facts = to_facts(pipeline, pool, "digest", times)
    told = [ImageSize(48, 32), LARGEST, ImageSize(64, 48)]
    assert all(pool.serves(*size) and facts.draws(size) for size in told)
    assert all((one.cap, len(one.step_s)) == (1, 1) for one in times.sizes)
    assert tuple(one.size for one in facts.sizes) == pool.measured_sizes[1:], "so what each costs is measured"


def pool_of_sizes(folder: Path) -> ModelPart:
    """One beside the default, and a range up to the largest."""
    ranged = {"width": 48, "height": 32, "maxWidth": LARGEST.width, "maxHeight": LARGEST.height, "multipleOf": 16}
    sizes = [{"width": 32, "height": 32}, ranged]
    told = {"source": folder.as_uri(), "numInferenceSteps": 4, "width": 48, "height": 32, "sizes": sizes}
    return ModelPart.model_validate(told)


def test_size_that_the_model_does_not_draw_is_refused_at_start(model_folder: Callable[..., Any]) -> None:
    """The field is named: FLUX quietly draws 40 pixels instead of 42."""
    pipeline: LoadedPipeline = load_pipeline(model_folder("flux"), "fp32", 48, 32, "cpu")
    with pytest.raises(ModelUnsupported, match=r"model\.sizes: FluxPipeline draws 40x32 instead of 42x32 pixels"):
        warm_up(pipeline, 3.0, 1, lambda _: None, sizes=(ImageSize(42, 32),))


@pytest.mark.parametrize(
    ("size", "drawn"), [((48, 32), True), ((96, 64), True), ((64, 40), True), ((96, 72), False), ((0, 0), False)]
)
def test_worker_draws_between_the_sizes_that_it_measured(size: tuple[int, int], drawn: bool) -> None:
    """Anyone may call its port: a size beyond might not fit into memory."""
    request = worker_pb2.WorkerGenerateRequest(
        prompt="a", width=size[0], height=size[1], level=level_pb2.Level(num_inference_steps=4)
    )
    if drawn:
        assert parse_request(request, FACTS).size == (None if size == (48, 32) else ImageSize(*size))
        return
    with pytest.raises(JobInvalid) as refused:
        parse_request(request, FACTS)
    assert [one.field for one in refused.value.violations] == ["width"]
