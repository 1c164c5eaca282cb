"""Speed-ups are tried at warm-up, and stay only where they draw what the plain model draws.

`aot_eager` stands for torch's code generator, which takes minutes on a small machine: it traces and recompiles the same
way, and runs PyTorch's own kernels.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from t2i_testing_kit.tiny_pipelines.families import FAMILIES, save_family
from t2i_testing_kit.tiny_pipelines.in_engine import TinyEngine
from t2i_testing_kit.tiny_pipelines.stock import TinyRequest
from t2i_worker.engine.meeting import DenoiserCall, SignatureReader
from t2i_worker.engine.speedups import MAX_DIFFERENCE, difference, speed_up
from t2i_worker.engine.warm_up import warm_up
from t2i_worker.pipelines import SpeedOptions

COMPILE, ATTENTION = SpeedOptions(compile=True), SpeedOptions(attention=True)
REQUESTS = [TinyRequest(seed=1), TinyRequest("two green squares", seed=2)]


@pytest.fixture(params=["sdxl", "sd3.5"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TinyEngine]:
    yield TinyEngine(request.param, save_family(request.param, tmp_path))
    torch._dynamo.reset()


def recorded(engine: TinyEngine) -> list[DenoiserCall]:
    reader, found, real = SignatureReader(engine.pipeline.denoiser.shared), [], engine.pipeline.denoiser.forward

    def noting(arguments: Mapping[str, Any], adapters: Any = ()) -> Any:
        found.append(reader.read(arguments))
        return real(arguments, adapters)

    engine.pipeline.denoiser.forward = noting  # type: ignore[method-assign]
    engine.draw(REQUESTS[:1])
    del engine.pipeline.denoiser.forward
    return found[-1:]


def test_compiled_model_draws_the_same(engine: TinyEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Alone and in a batch, within the stated bound."""
    monkeypatch.setattr("t2i_worker.engine.speedups._time", lambda *_: 1.0)
    plain = [run.final for run in engine.draw(REQUESTS)]
    with torch.inference_mode():
        used = speed_up(engine.pipeline, recorded(engine), COMPILE, compiler="aot_eager")
    assert used == ["compiled blocks"]
    for run, wanted in zip(engine.draw(REQUESTS), plain, strict=True):
        assert difference(run.final, wanted) <= MAX_DIFFERENCE[torch.float32]


@pytest.mark.parametrize("name", ["sd3.5"])
def test_attention_kernel_draws_the_same(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The faster of two; one that is not there is left out."""
    engine = TinyEngine(name, save_family(name, tmp_path))
    (plain,) = (run.final for run in engine.draw(REQUESTS[:1]))
    calls, seconds = recorded(engine), iter([3.0, 2.0])
    monkeypatch.setattr("t2i_worker.engine.speedups._time", lambda *_: next(seconds))
    with torch.inference_mode():
        used = speed_up(engine.pipeline, calls, ATTENTION, attention=("_flash_3", "_native_math"))
    assert used == ["attention _native_math"]
    assert difference(engine.draw(REQUESTS[:1])[0].final, plain) <= MAX_DIFFERENCE[torch.float32]


def played_compiler(changes: Callable[[Any], Any]) -> Callable[..., None]:
    """Stands for torch's: the block's output is changed."""

    def compile_block(block: Any, backend: str) -> None:
        del backend
        block._compiled_call_impl = lambda *args, **kwargs: changes(block.forward(*args, **kwargs))

    return compile_block


def _raise(_: Any) -> Any:
    raise RuntimeError("no compiler here")


@pytest.mark.parametrize(("changes", "said"), [(lambda out: out * 1.5, "differs"), (_raise, "left out")])
def test_speedup_that_draws_something_else_is_undone(
    changes: Any, said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong kernel or a missing compiler costs a line in the log, and no image."""
    engine = TinyEngine("sdxl", save_family("sdxl", tmp_path))
    (plain,) = (run.final for run in engine.draw(REQUESTS[:1]))
    calls = recorded(engine)
    monkeypatch.setattr(torch.nn.Module, "compile", played_compiler(changes))
    with torch.inference_mode(), caplog.at_level(logging.WARNING):
        assert speed_up(engine.pipeline, calls, COMPILE) == []
    assert said in caplog.text
    assert torch.equal(engine.draw(REQUESTS[:1])[0].final, plain)


def test_compiled_model_that_is_slower_is_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU, where no graph takes away what it costs at each call."""
    engine, seconds = TinyEngine("sdxl", save_family("sdxl", tmp_path)), iter([1.0, 1.1])
    calls = recorded(engine)
    monkeypatch.setattr("t2i_worker.engine.speedups._time", lambda *_: next(seconds))
    monkeypatch.setattr(torch.nn.Module, "compile", played_compiler(lambda out: out))
    with torch.inference_mode():
        assert speed_up(engine.pipeline, calls, COMPILE) == []
    assert all(part._compiled_call_impl is None for part in engine.pipeline.denoiser.module.modules())


def test_warm_up_applies_what_the_pool_wants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing by default."""
    engine = TinyEngine("sdxl", save_family("sdxl", tmp_path))
    asked: list[SpeedOptions] = []
    monkeypatch.setattr("t2i_worker.engine.warm_up.speed_up", lambda _pipeline, _calls, wanted: asked.append(wanted))
    for options in ({}, {"wanted": COMPILE}):
        warm_up(engine.pipeline, FAMILIES["sdxl"].guidance, 1, lambda _: None, **options)
    assert asked == [SpeedOptions(), COMPILE]


def test_difference_is_in_parts_of_the_deviation_and_sees_what_is_no_number() -> None:
    reference = torch.tensor([-2.0, 2.0])
    assert difference({"sample": reference + 1}, {"sample": reference}) == pytest.approx(0.5)
    assert difference([torch.tensor([float("nan"), 2.0])], [reference]) == float("inf")
