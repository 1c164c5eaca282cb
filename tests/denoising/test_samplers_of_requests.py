"""A request may choose its sampler: the image is what diffusers' own recipe for that sampler gives."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import diffusers
import numpy as np
import pytest
from diffusers import EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler, SCMScheduler

from t2i_policy.level import SOLVERS, Level
from t2i_runtime.drawing import Drawing
from t2i_testing_kit.tiny_pipelines.families import FAMILIES, save_family
from t2i_worker.engine.stock_call import StockCall
from t2i_worker.engine.warm_up import make_schedule
from t2i_worker.errors import JobInvalid
from t2i_worker.jobs import Job
from t2i_worker.pipelines import LoadedPipeline, load_pipeline
from t2i_worker.pipelines.samplers import SAMPLERS, make_scheduler

JOB = Job("id", "a red circle left of the blue square", "", 1, 3.0, Level(0, 4), "png")
EULER, FLOW = EulerDiscreteScheduler(prediction_type="v_prediction"), FlowMatchEulerDiscreteScheduler(shift=3.0)


@pytest.fixture(scope="module")
def pipeline(load: Callable[..., LoadedPipeline]) -> LoadedPipeline:
    return load("sd")


@pytest.mark.parametrize("name", [*SAMPLERS, "DEISMultistepScheduler"])
def test_image_is_that_of_the_recipe(name: str, pipeline: LoadedPipeline) -> None:
    """`pipe.scheduler = Kind.from_config(pipe.scheduler.config, ...)`, as every tutorial has it."""
    job = replace(JOB, drawing=Drawing(name))
    call = StockCall(pipeline, pipeline.arguments(job), pipeline.denoiser.forward, scheduler=pipeline.scheduler(job))
    ours = call.draw(1)
    sampler = SAMPLERS.get(name)
    kind = getattr(diffusers, name if sampler is None else sampler.kind)
    own, stock = pipeline.stock.scheduler, pipeline.stock
    try:
        stock.scheduler = kind.from_config(own.config, **({} if sampler is None else sampler.options))
        alone = StockCall(pipeline, pipeline.arguments(JOB), pipeline.denoiser.forward).draw(1)
    finally:
        stock.scheduler = own
    assert np.array_equal(ours, alone)
    assert type(call.own.scheduler) is kind


def test_sampler_that_draws_noise_follows_the_seed(tmp_path: Path) -> None:
    """Pipelines of FLUX hand it no generator: stock draws noise that no seed repeats."""
    tiny = FAMILIES["flux-dev"]
    pipeline = load_pipeline(save_family("flux-dev", tmp_path), "fp32", tiny.width, tiny.height, "cpu")
    job = replace(JOB, drawing=Drawing("lcm"))
    one, again, other = (
        StockCall(pipeline, pipeline.arguments(job), pipeline.denoiser.forward, scheduler=pipeline.scheduler(job)).draw(
            seed
        )
        for seed in (1, 1, 2)
    )
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_what_the_model_predicts_carries_over() -> None:
    """A sampler that took v for noise would draw noise."""
    assert make_scheduler("dpm++-2m-karras", EULER).config.prediction_type == "v_prediction"
    flow = make_scheduler("unipc", FLOW).config
    assert (flow.prediction_type, flow.use_flow_sigmas, flow.flow_shift) == ("flow_prediction", True, 3.0)


@pytest.mark.parametrize(
    ("name", "own", "says"),
    [
        ("ddim", FLOW, "does not suit this model, which draws with FlowMatchEulerDiscreteScheduler"),
        ("FlowMatchEulerDiscreteScheduler", EULER, "does not suit this model"),
        ("euler b", EULER, "is not known; take one of ddim, dpm"),
        ("DiffusionPipeline", EULER, "does not suit"),
        ("os", EULER, "is not known"),
        ("euler", SCMScheduler(), "draws with SCMScheduler only"),
    ],
)
def test_sampler_of_another_kind_of_noise_is_refused(name: str, own: object, says: str) -> None:
    """It would draw a wrong image in silence."""
    with pytest.raises(JobInvalid, match=r"drawing\.sampler") as refused:
        make_scheduler(name, own)
    assert says in str(refused.value)


@pytest.mark.parametrize("solver", SOLVERS)
def test_embedded_model_draws_with_every_solver_of_levels(solver: str, load: Callable[..., LoadedPipeline]) -> None:
    """Also with one that takes no noise levels: its own are nearly those of the training."""
    pipeline = load("scenes")
    job = replace(JOB, level=Level(0, 6, solver=solver))
    make_schedule(pipeline, job.level)
    call = StockCall(pipeline, pipeline.arguments(job), pipeline.denoiser.forward, scheduler=pipeline.scheduler(job))
    assert np.isfinite(call.draw(1)).all()
    assert len(call.own.scheduler.timesteps) == 6


@pytest.mark.parametrize("solver", SOLVERS)
def test_solver_that_the_pipeline_refuses_is_told_by_its_field(solver: str, tmp_path: Path) -> None:
    """Z-Image hands its sampler noise levels and a shift, which neither takes."""
    tiny = FAMILIES["z-image"]
    pipeline = load_pipeline(save_family("z-image", tmp_path), "fp32", tiny.width, tiny.height, "cpu")
    with pytest.raises(JobInvalid) as refused:
        make_schedule(pipeline, Level(0, 6, solver=solver))
    (violation,) = refused.value.violations
    assert violation.field == "level.solver"
    assert solver in violation.description
