"""Forecast steps, guidance tails and solvers of levels: the images that they promise, whoever shares the batch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from diffusers import EulerAncestralDiscreteScheduler, HeunDiscreteScheduler, UniPCMultistepScheduler
from torch import Tensor

from t2i_policy.level import Level
from t2i_testing_kit.tiny_pipelines.families import save_family
from t2i_testing_kit.tiny_pipelines.in_engine import EngineRun, ResumeFrom, TinyEngine
from t2i_testing_kit.tiny_pipelines.limits import MIXED_BOUND
from t2i_testing_kit.tiny_pipelines.stock import TinyRequest
from t2i_worker.engine.guidance import find_prompted_part
from t2i_worker.engine.saved_calls import check_savings
from t2i_worker.engine.stock_call import StockCall
from t2i_worker.errors import JobInvalid
from t2i_worker.pipelines import PromptedPart

STEPS = 7
FORECAST = TinyRequest(seed=3, steps=STEPS, bent={"forecast": 2})
COMPUTED = (0, 1, 3, 5)  # of seven steps with forecast 2
TAIL = TinyRequest(seed=4, steps=STEPS, bent={"guided_steps": 3})
Engines = Callable[[str], TinyEngine]


@pytest.fixture(scope="module")
def engine_of(tmp_path_factory: pytest.TempPathFactory) -> Engines:
    def load(name: str) -> TinyEngine:
        engine = TinyEngine(name, save_family(name, tmp_path_factory.mktemp("levels") / name))
        engine.pipeline.prompted_part = find_prompted_part(engine.pipeline, engine.family.guidance)
        return engine

    return cache(load)


def alone(engine: TinyEngine, request: TinyRequest) -> EngineRun:
    (run,) = engine.draw([request])
    assert run.error is None, run.error
    return run


def stock_with(engine: TinyEngine, request: TinyRequest, answer: Callable[[Mapping[str, Any]], Any]) -> Tensor:
    """The final latent of a stock call whose denoiser is `answer`."""
    job = engine.job(replace(request, bent={}))
    steps = job.level.num_inference_steps
    call = StockCall(engine.pipeline, engine.pipeline.arguments(job), answer, keep=frozenset({steps}))
    call.draw(request.seed)
    return call.own.kept[steps]


def far(one: Tensor, other: Tensor) -> float:
    """In deviations of the latents."""
    return float((one - other).abs().max() / other.std())


@pytest.mark.parametrize("name", ["sdxl", "flux-dev"])
def test_forecast_step_extrapolates_the_last_two_outputs(name: str, engine_of: Engines) -> None:
    """By hand: where steps lie evenly, the outputs of steps 3 and 1 make that of step 4 as o3 + (o3 - o1) / 2."""
    engine = engine_of(name)
    known: list[tuple[float, Tensor]] = []
    number, begun = -1, 0

    def answer(arguments: Mapping[str, Any]) -> Any:
        nonlocal number, begun
        number += 1
        at = float(arguments["timestep"].flatten()[0])
        if number not in COMPUTED:
            (t0, one), (t1, other) = known[-2:]
            return (other + (at - t1) / (t1 - t0) * (other - one),)
        begun += 1
        (output, *_) = engine.pipeline.denoiser.forward(arguments)
        known.append((at, output))
        return (output,)

    expected = stock_with(engine, FORECAST, answer)
    run = alone(engine, FORECAST)
    assert begun == len(COMPUTED) == sum(engine.batch_sizes.values())
    assert far(run.final, expected) < 1e-4
    assert far(run.final, alone(engine, replace(FORECAST, bent={})).final) > 1e-3, "it is no exact run"


@pytest.mark.parametrize("name", ["sdxl", "qwen-image", "flux-dev", "z-image"])
def test_bent_request_draws_in_a_batch_what_it_draws_alone(name: str, engine_of: Engines) -> None:
    """Beside exact ones, which stay what they are."""
    engine = engine_of(name)
    negative = "a cat" if name == "qwen-image" else ""
    bent: list[dict[str, Any]] = [{"forecast": 2}, {}, {"forecast": 3}, {"computed_steps": (0, 1, 4)}]
    if engine.pipeline.prompted_part is not None:
        bent += [{"guided_steps": 3}, {"forecast": 2, "guided_steps": 4}]
    asked = [TinyRequest(seed=at, steps=STEPS, negative=negative, bent=one) for at, one in enumerate(bent)]
    singly = [alone(engine, one) for one in asked]
    for one, run in zip(singly, engine.draw(asked), strict=True):
        assert run.error is None
        assert far(run.final, one.final) <= MIXED_BOUND


@pytest.mark.parametrize(
    "bent", [{"forecast": 2}, {"guided_steps": 5}, {"guided_steps": 6, "computed_steps": (2, 3, 6)}]
)
def test_resumed_bent_request_is_the_same_image_alone_and_in_a_batch(bent: dict[str, Any], engine_of: Engines) -> None:
    engine = engine_of("sdxl")
    start = ResumeFrom(2, alone(engine, TinyRequest(seed=9, steps=STEPS)).final)
    asked = [TinyRequest(seed=5, steps=STEPS, bent=bent), TinyRequest(seed=6, steps=STEPS)]
    (single,) = engine.draw(asked[:1], {0: start})
    assert single.error is None
    forwards = sum(engine.batch_sizes.values())
    assert forwards == len([at for at in range(2, STEPS) if Level(2, STEPS, **bent).computes(at, 2)])
    both = engine.draw(asked, {0: start})
    assert far(both[0].final, single.final) <= MIXED_BOUND


def rows_on_the_device(engine: TinyEngine, request: TinyRequest) -> list[int]:
    seen: list[int] = []
    real = engine.pipeline.denoiser.forward

    def counting(arguments: Mapping[str, Any], *rest: Any) -> Any:
        first = next(value for value in arguments.values() if isinstance(value, Tensor | list))
        seen.append(len(first))
        return real(arguments, *rest)

    engine.pipeline.denoiser.forward = counting  # type: ignore[method-assign]
    try:
        alone(engine, request)
    finally:
        engine.pipeline.denoiser.forward = real  # type: ignore[method-assign]
    return seen


@pytest.mark.parametrize(
    ("name", "negative", "rows"),
    [
        ("sdxl", "", [2, 2, 2, 1, 1, 1, 1]),
        ("z-image", "", [2, 2, 2, 1, 1, 1, 1]),
        ("qwen-image", "a cat", [1] * (3 * 2 + 4)),
        ("qwen-image", "", [1] * STEPS),  # it guides no request without a negative prompt
    ],
)
def test_rows_without_the_prompt_never_reach_the_device(
    name: str, negative: str, rows: Sequence[int], engine_of: Engines
) -> None:
    assert rows_on_the_device(engine_of(name), replace(TAIL, negative=negative)) == rows


def test_tail_is_drawn_from_the_prompted_output_alone(engine_of: Engines) -> None:
    engine = engine_of("sdxl")
    number = -1

    def answer(arguments: Mapping[str, Any]) -> Any:
        nonlocal number
        number += 1
        (output, *_) = engine.pipeline.denoiser.forward(arguments)
        return (output,) if number < 3 else (torch.cat([output[1:], output[1:]]),)

    assert far(alone(engine, TAIL).final, stock_with(engine, TAIL, answer)) < 1e-4


def test_unguided_request_keeps_all_its_rows(engine_of: Engines) -> None:
    """Guidance 1 has no rows to leave out: two images of one call are no halves of one."""
    engine = engine_of("sdxl")
    plain = replace(TAIL, guidance=1.0, extra={"num_images_per_prompt": 2})
    assert rows_on_the_device(engine, plain) == [2] * STEPS


def test_solver_of_a_level_is_the_sampler_of_that_name(engine_of: Engines) -> None:
    engine = engine_of("sdxl")
    job = engine.job(TinyRequest(steps=STEPS, bent={"solver": "unipc"}))
    assert isinstance(engine.pipeline.scheduler(job), UniPCMultistepScheduler)
    run = alone(engine, TinyRequest(seed=3, steps=STEPS, bent={"solver": "unipc", "forecast": 2}))
    assert far(run.final, alone(engine, FORECAST).final) > 1e-3


@pytest.mark.parametrize(
    ("bent", "kind", "part", "field"),
    [
        ({"forecast": 2}, EulerAncestralDiscreteScheduler, PromptedPart(1), "level.forecast"),
        ({"computed_steps": (0, 1)}, HeunDiscreteScheduler, PromptedPart(1), "level.forecast"),
        ({"forecast": 2}, HeunDiscreteScheduler, PromptedPart(1), "level.forecast"),
        ({"guided_steps": 3}, UniPCMultistepScheduler, None, "level.guided_steps"),
    ],
)
def test_what_a_model_cannot_do_is_refused_by_name(
    bent: dict[str, Any], kind: Any, part: PromptedPart | None, field: str
) -> None:
    with pytest.raises(JobInvalid) as refused:
        check_savings(Level(0, STEPS, **bent), kind(), part)
    assert [one.field for one in refused.value.violations] == [field]


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("sd15", PromptedPart(1)),  # PNDM makes its second step twice
        ("sdxl", PromptedPart(1)),
        ("z-image", PromptedPart(0)),  # the prompt comes first
        ("qwen-image", PromptedPart(None)),  # two calls, and only with a negative prompt
        ("flux-dev", None),  # distilled
        ("sdxl-turbo", None),  # its guidance scale is 0
    ],
)
def test_the_prompted_part_is_found_by_looking(name: str, part: PromptedPart | None, engine_of: Engines) -> None:
    assert engine_of(name).pipeline.prompted_part == part


def test_forecast_steps_are_counted_apart(engine_of: Engines) -> None:
    engine = engine_of("sdxl")
    alone(engine, FORECAST)
    assert (engine.tally.steps_run, engine.tally.steps_forecast) == (len(COMPUTED), STEPS - len(COMPUTED))
