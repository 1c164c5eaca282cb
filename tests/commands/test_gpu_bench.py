"""The GPU benchmark is one prepared run on a machine that is hard to get: its slips must show on a CPU."""

import json
import runpy
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench.gpu.measure import rows_of
from bench.gpu.models import DENOISERS, denoiser
from bench.gpu.page import figures_of
from bench.gpu.published import PARAMETERS
from bench.gpu.run import main, run_part


@pytest.mark.parametrize("name", DENOISERS)
def test_denoisers_have_the_published_number_of_weights(name: str) -> None:
    """A wrong width or depth would measure another model."""
    assert sum(one.numel() for one in denoiser(name).parameters()) == PARAMETERS[name]


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that a run starts are run here: starting each anew takes longer than what it measures."""

    def run(command: Sequence[object], **_: object) -> subprocess.CompletedProcess[bytes]:
        program, flag, module, *arguments = map(str, command)
        assert (program, flag) == (sys.executable, "-m")
        monkeypatch.setattr(sys, "argv", [module, *arguments])
        runpy.run_module(module, run_name="__main__")
        return subprocess.CompletedProcess([], 0)

    played = SimpleNamespace(run=run, TimeoutExpired=subprocess.TimeoutExpired)
    monkeypatch.setattr("bench.gpu.run.subprocess", played)


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("in_this_process")
def test_dry_run_measures_everything(tmp_path: Path) -> None:
    """Only what needs a GPU may fail, and it says why."""
    places = ["--out", str(tmp_path / "gpu.json"), "--results", str(tmp_path)]
    main(["--dry-run", "--models", "sdxl", *places])
    figures = json.loads((tmp_path / "gpu.json").read_text())
    assert figures["ended"] == {"sdxl": "ended"}
    failed = [row for row in figures["rows"] if row["what"] == "failed"]
    assert {row["part"] for row in failed} == {"fp8"}
    assert "needs a GPU" in failed[0]["error"]
    for name in figures["ended"]:
        found = {row["what"] for row in figures["rows"] if row["model"] == name}
        assert found >= {"built", "image", "step", "images", "applied"}, name
    assert "| sdxl | 32 | 2 |" in (tmp_path / "gpu.md").read_text()


def test_killed_part_leaves_what_it_has(tmp_path: Path) -> None:
    """A model that takes too long costs its own figures only."""
    rows = tmp_path / "rows"
    rows.write_text('{"model": "sdxl", "mode": "eager", "what": "built", "seconds": 1.0}\n{"model": "sd')
    assert run_part("sdxl", rows, True, 0.01).startswith("stopped")
    kept = list(rows_of(rows.read_text().splitlines()))
    assert [row["what"] for row in kept] == ["built"]
    assert "1.0 s" in figures_of(kept, {"sdxl": "stopped"}, "")


def test_page_without_a_gpu_says_so() -> None:
    assert "Nothing is measured yet" in figures_of([], {}, "")
