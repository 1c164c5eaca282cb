"""Health follows thread, device and results: a worker that cannot draw says so, and one that can again comes back."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from t2i_cache.stores import MemoryStore
from t2i_policy.level import Level
from t2i_policy.readiness import (
    EngineSigns,
    FailuresInARow,
    ReadyReason,
    judge_readiness,
    pause_before_test_s,
)
from t2i_scenes import model_path
from t2i_worker.device_errors import is_device_lost
from t2i_worker.engine import step_loop
from t2i_worker.engine.batching import WarmUpTimes
from t2i_worker.engine.diffusion import DiffusionEngine
from t2i_worker.errors import EngineLost, JobFailed, NotFinite, OutOfMemory, WorkerUnready
from t2i_worker.health_following import follow_health, with_probes
from t2i_worker.jobs import Event, Image, Job, ModelFacts, PreviewImage
from t2i_worker.latents import LatentCache
from t2i_worker.pipelines import LoadedPipeline, load_pipeline

STEPS = 4
FACTS = ModelFacts("digest", "flow-euler", "float32", "cpu", STEPS, 2.0, 48, 48, 27 * 16 * 16 * 4, "diffusion")
JOB = Job("id", "a red circle on a plain blue background", "", 7, 2.0, Level(0, STEPS), "png")
CPU = torch.device("cpu")
ASSERTED = torch.AcceleratorError("CUDA error: device-side assert triggered")


class Refusing:
    """Stands in for a call and raises `error` while there is one."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self.error: Exception | None = None
        self._call = call

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.error is not None:
            raise self.error
        return self._call(*args, **kwargs)


@pytest.fixture(scope="module")
def loaded() -> LoadedPipeline:
    return load_pipeline(model_path(), "fp32", 48, 48, "cpu")


@pytest.fixture
def faults(loaded: LoadedPipeline, monkeypatch: pytest.MonkeyPatch) -> dict[str, Refusing]:
    """`faults[place].error` is what is raised at this place of the stock pipeline."""
    stock = loaded.stock
    places = {"encode": (stock, "_encode"), "predict": (loaded.denoiser, "forward"), "decode": (stock, "_to_images")}
    made = {}
    for place, (owner, name) in places.items():
        made[place] = Refusing(getattr(owner, name))
        monkeypatch.setattr(owner, name, made[place])
    return made


@pytest.fixture
async def engine(loaded: LoadedPipeline) -> AsyncIterator[DiffusionEngine]:
    made = DiffusionEngine(loaded, FACTS, WarmUpTimes(2, (0.01, 0.02), 0.001), LatentCache(MemoryStore(), FACTS))
    yield made
    await made.close()


async def draw(engine: DiffusionEngine, number: int = 0, **changes: Any) -> list[Event]:
    job = replace(JOB, request_id=f"request-{number}", **changes)
    return [event async for event in engine.generate(job)]


async def until(engine: DiffusionEngine, ready: bool) -> None:
    async with asyncio.timeout(60):
        while engine.load().ready is not ready:
            await engine.changed()


@pytest.mark.parametrize("error", [KeyError("x"), AttributeError("y"), AssertionError(), torch.AcceleratorError("odd")])
async def test_any_exception_of_a_step_fails_its_request_alone(
    error: Exception, engine: DiffusionEngine, faults: dict[str, Refusing]
) -> None:
    """Whatever a library raises, the thread goes on and the next request is served."""
    faults["predict"].error = error
    with pytest.raises(JobFailed):
        await draw(engine)
    faults["predict"].error = None
    assert any(isinstance(event, Image) for event in await draw(engine))


@pytest.mark.parametrize("place", ["encode", "predict", "decode"])
async def test_lost_device_makes_the_worker_unready_for_good(
    place: str, engine: DiffusionEngine, faults: dict[str, Refusing]
) -> None:
    """In whichever thread it shows: the request may move, and health tells the process to end."""
    said: list[bool] = []
    begun = asyncio.Event()

    async def say(ready: bool) -> None:
        said.append(ready)
        begun.set()

    following = asyncio.create_task(follow_health(engine, say))
    await begun.wait()
    faults[place].error = ASSERTED
    with pytest.raises(EngineLost):
        await draw(engine)
    verdict = await asyncio.wait_for(following, 60)
    assert (verdict.reason, verdict.lost, said) == (ReadyReason.DEVICE_LOST, True, [True, False])
    assert not engine.load().ready
    faults[place].error = None
    with pytest.raises(EngineLost):
        await draw(engine)


async def test_ended_denoise_thread_makes_the_worker_unready(
    engine: DiffusionEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistake in the loop itself: nobody waits for ever, the reason is told, and no request is taken."""

    def wrong(*_: Any) -> None:
        raise SystemExit

    monkeypatch.setattr(step_loop.StepLoop, "_pass_boundary", wrong)
    with pytest.raises(EngineLost):
        await draw(engine)
    assert engine.readiness().reason is ReadyReason.LOOP_ENDED
    assert not engine.load().ready


@pytest.mark.parametrize("place", ["encode", "predict", "decode"])
async def test_worker_that_fails_every_request_is_out_until_its_test_succeeds(
    place: str, engine: DiffusionEngine, faults: dict[str, Refusing]
) -> None:
    """Three different ones in a row; then it draws one of its own, again and again, and comes back by itself."""
    paused, go_on = asyncio.Event(), asyncio.Event()

    async def pause(seconds: float) -> None:
        if seconds:
            paused.set()
            await go_on.wait()

    engine._self_test._pause = pause
    faults[place].error = RuntimeError("no kernel")
    for number in (1, 1, 2, 3):
        assert engine.load().ready
        with pytest.raises(JobFailed):
            await draw(engine, number)
    assert engine.readiness().reason is ReadyReason.REQUESTS_FAIL
    with pytest.raises(WorkerUnready):
        await draw(engine, 4)
    await asyncio.wait_for(paused.wait(), 60)
    assert engine.tally.self_tests == {"failed": 1}
    faults[place].error = None
    go_on.set()
    await until(engine, ready=True)
    assert engine.tally.self_tests == {"failed": 1, "passed": 1}
    assert engine.tally.failures_in_a_row == 0
    assert any(isinstance(event, Image) for event in await draw(engine, 5))


async def test_odd_requests_keep_no_good_worker_out(engine: DiffusionEngine, faults: dict[str, Refusing]) -> None:
    """Requests that fail by themselves cost one test: an ordinary request is drawn, and the worker is back."""
    for number in range(3):
        faults["decode"].error = NotFinite("for this request")
        with pytest.raises(NotFinite):
            await draw(engine, number)
        faults["decode"].error = None
    await until(engine, ready=True)
    assert engine.tally.self_tests == {"passed": 1}


async def test_success_between_failures_forgets_them(engine: DiffusionEngine, faults: dict[str, Refusing]) -> None:
    """Two failures, a success, two failures: no reason to doubt the worker."""
    for number, fails in enumerate((True, True, False, True, True)):
        faults["predict"].error = RuntimeError("no kernel") if fails else None
        if fails:
            with pytest.raises(JobFailed):
                await draw(engine, number)
        else:
            await draw(engine, number)
    assert engine.load().ready
    assert engine.tally.failures == {"GenerationFailed": 4}


@pytest.mark.parametrize(
    ("error", "kind", "label"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), OutOfMemory, "OutOfMemory"),
        (IndexError("odd"), JobFailed, "GenerationFailed"),
    ],
    ids=["memory", "other"],
)
async def test_failure_in_decoding_is_an_error_of_ours_and_counted(
    error: Exception, kind: type[Exception], label: str, engine: DiffusionEngine, faults: dict[str, Refusing]
) -> None:
    """Not a cancellation, no internal text; running out of memory is told as that."""
    faults["decode"].error = error
    with pytest.raises(kind) as caught:
        await draw(engine)
    assert type(caught.value) is kind
    assert str(error) not in str(caught.value)
    assert engine.tally.failures == {label: 1}
    assert (engine.tally.out_of_memory > 0) is (kind is OutOfMemory)


async def test_preview_that_fails_is_left_out(
    engine: DiffusionEngine, loaded: LoadedPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told in a metric; the image comes."""
    errors, decode = [NotFinite("odd")], loaded.stock._to_images

    def once_not_finite(latent: torch.Tensor) -> Any:
        if errors:
            raise errors.pop()
        return decode(latent)

    monkeypatch.setattr(loaded.stock, "_to_images", once_not_finite)
    events = await draw(engine, preview_every_steps=1)
    assert [event.step for event in events if isinstance(event, PreviewImage)] == [2, 3]
    assert any(isinstance(event, Image) for event in events)
    assert engine.tally.previews_left_out == 1


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (ASSERTED, True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx`"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), True),
        (RuntimeError("HIP error: unspecified launch failure"), True),
        (RuntimeError("CUDA error: uncorrectable ECC error encountered"), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), False),
        (RuntimeError("CUDA error: out of memory"), False),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), False),
        (RuntimeError("CUDA error: invalid configuration argument"), False),
        (RuntimeError("Sizes of tensors must match"), False),
        (ValueError("an illegal memory access"), False),
    ],
)
def test_errors_that_a_device_does_not_recover_from_are_known(error: Exception, lost: bool) -> None:
    """Too little memory and wrong calls pass; where the text leaves it open, a device that answers is not lost."""
    assert is_device_lost(error, CPU) is lost


@pytest.mark.parametrize(
    ("signs", "reason"),
    [
        (EngineSigns(), "Ready"),
        (EngineSigns(draining=True), "Draining"),
        (EngineSigns(failures=FailuresInARow(frozenset("ab"))), "Ready"),
        (EngineSigns(failures=FailuresInARow(frozenset("abc"))), "RequestsFail"),
        (EngineSigns(step_age_s=119.0, step_s=1.0), "Ready"),
        (EngineSigns(step_age_s=121.0, step_s=1.0), "StepStuck"),
        (EngineSigns(step_age_s=121.0, step_s=10.0), "Ready"),
        (EngineSigns(draining=True, lost=ReadyReason.DEVICE_LOST), "DeviceLost"),
    ],
)
def test_gravest_reason_is_told(signs: EngineSigns, reason: str) -> None:
    """One verdict with its reason, from what an engine sees of itself."""
    assert judge_readiness(signs).reason == reason


def test_tests_become_rarer_while_they_fail() -> None:
    """The first one at once, then after 1, 2, 4 ... 30 seconds, for weeks if need be."""
    assert [pause_before_test_s(failed) for failed in (0, 1, 2, 3, 10, 10_000)] == [0, 1, 2, 4, 30, 30]


@pytest.mark.parametrize(
    ("reason", "live", "ready"),
    [
        (None, 200, 503),
        ("Ready", 200, 200),
        ("RequestsFail", 200, 503),
        ("StepStuck", 503, 503),
        ("DeviceLost", 503, 503),
    ],
)
def test_http_probes_say_what_the_verdict_is(reason: str | None, live: int, ready: int) -> None:
    """A kubelet restarts what is not live; a load balancer leaves out what is not ready."""
    now = None if reason is None else judge_readiness(EngineSigns())
    if reason is not None:
        now = type(judge_readiness(EngineSigns()))(ReadyReason(reason))
    app = with_probes(lambda *_: [b"metrics"], lambda: now)

    def ask(path: str) -> int:
        codes: list[str] = []
        app({"PATH_INFO": path}, lambda status, _: codes.append(status))
        return int(codes[0].split()[0])

    assert (ask("/livez"), ask("/readyz")) == (live, ready)
    assert app({"PATH_INFO": "/metrics"}, None) == [b"metrics"]  # type: ignore[arg-type]
