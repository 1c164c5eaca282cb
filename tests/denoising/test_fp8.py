"""fp8 by torchao: refused where it cannot be computed, and only for matrices that bear it."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from t2i_testing_kit.tiny_pipelines.families import save_family
from t2i_worker.digests import variant_of
from t2i_worker.errors import ModelUnsupported
from t2i_worker.pipelines import load_pipeline
from t2i_worker.pipelines.fp8 import check_fp8, is_fit, quantize_to_fp8

CUDA = torch.device("cuda")


def test_worker_that_cannot_compute_in_fp8_says_so_before_it_loads(tmp_path: Path) -> None:
    """A CPU, an older GPU, an image without torchao: one sentence each, with what to do."""
    with pytest.raises(ModelUnsupported, match=r"needs a GPU of compute capability 8\.9 or more; use bf16"):
        load_pipeline(save_family("sdxl", tmp_path), "fp8", 48, 32, "cpu")


@pytest.mark.parametrize(("capability", "said"), [((8, 0), "capability 8.9"), ((9, 0), "needs torchao")])
def test_what_is_missing_is_named(capability: tuple[int, int], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setitem(sys.modules, "torchao", None)
    with pytest.raises(ModelUnsupported, match=said):
        quantize_to_fp8(torch.nn.Linear(16, 16), CUDA)


def test_only_matrices_of_the_blocks_are_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchao is played: it is asked for each part, with one scale a row."""
    asked: dict[str, bool] = {}

    def quantize(module: torch.nn.Module, config: Any, filter_fn: Any) -> None:
        assert config == {"granularity": "row"}
        asked.update({name: filter_fn(part, name) for name, part in module.named_modules()})

    played = SimpleNamespace(
        Float8DynamicActivationFloat8WeightConfig=lambda **options: options, PerRow=lambda: "row", quantize_=quantize
    )
    torchao = ModuleType("torchao")
    torchao.quantization = played  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchao", torchao)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    block = torch.nn.ModuleDict({"to_q": torch.nn.Linear(32, 32), "odd": torch.nn.Linear(32, 7)})
    parts = {"blocks": torch.nn.ModuleList([block]), "time_embed": torch.nn.ModuleList([torch.nn.Linear(32, 32)])}
    quantize_to_fp8(torch.nn.ModuleDict({**parts, "proj_out": torch.nn.Linear(32, 32)}), CUDA)
    assert [name for name, fit in asked.items() if fit] == ["blocks.0.to_q"]
    assert not is_fit(torch.nn.Conv2d(16, 16, 1), "blocks.0.conv")


def test_locked_torchao_has_what_is_asked_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker's image brings it; the parts that are used are not of torchao's stable names."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    quantization = check_fp8(CUDA)
    assert quantization.Float8DynamicActivationFloat8WeightConfig(granularity=quantization.PerRow())
    assert callable(quantization.quantize_)


def test_fp8_loads_the_weights_of_bf16() -> None:
    assert [variant_of(one) for one in ("fp8", "bf16", "fp16", "fp32")] == ["bf16", "bf16", "fp16", ""]


def test_import_of_torchao_says_nothing_in_a_workers_log() -> None:
    """diffusers imports it wherever it is installed, also for models in bf16."""
    code = "from t2i_runtime.logs import set_up_logs; set_up_logs(); import t2i_worker.pipelines"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stderr == ""
