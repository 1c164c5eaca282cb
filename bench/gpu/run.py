"""Full-size models with random weights on one GPU: `make bench-gpu` -> bench/results/gpu.md. Under ten minutes.

SDXL, SD3.5-medium, FLUX.1-dev, Z-Image and Qwen-Image are built from their published sizes, each in a process of its
own with its share of the time. What a killed one has measured so far stays. `--dry-run` does all of it with tiny models
on the CPU, so that the one run on a borrowed GPU does not fail of a slip. Without a GPU the page says so. Keys:

    rows    as they came: model, mode (eager, attention, compiled, graphs, fp8), what, and its figures
    ended   by model: ended, or why not
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from bench.gpu.measure import Row, rows_of
from bench.gpu.page import figures_of
from bench.gpu.published import PARAMETERS
from bench.kit.arguments import BenchParser
from bench.kit.output import say, write_json, write_page
from bench.kit.places import ROOT

PARSER = BenchParser(__doc__, "gpu", quick={"dry_run": True}, page=True)
PARSER.add_argument("--dry-run", action="store_true", help="tiny models on the CPU; figures as of --quick")
PARSER.add_argument("--models", nargs="*", choices=PARAMETERS, default=list(PARAMETERS))
PARSER.add_argument("--limit-s", type=float, default=560.0, help="for all models together")


def main(arguments: Sequence[str] | None = None) -> None:
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = PARSER.parse([*given, "--quick"] if "--dry-run" in given else given)
    rows, ended = measure(options) if options.dry_run or torch.cuda.is_available() else ([], {})
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    write_page(
        options.results / "gpu.md",
        Path(__file__).with_name("page.md.in"),
        figures=figures_of(rows, ended, device),
        torch=torch.__version__.partition("+")[0],
    )
    write_json(options.out, {"device": device, "ended": ended, "rows": rows})


def measure(options: argparse.Namespace) -> tuple[list[Row], Mapping[str, str]]:
    """Each model gets an equal share of the time that is left."""
    ends_s = time.monotonic() + options.limit_s
    ended: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "rows"
        file.touch()
        for number, model in enumerate(options.models):
            limit_s = (ends_s - time.monotonic()) / (len(options.models) - number)
            ended[model] = run_part(model, file, options.dry_run, limit_s)
            say(f"{model}: {ended[model]}")
        return list(rows_of(file.read_text().splitlines())), ended


def run_part(model: str, file: Path, tiny: bool, limit_s: float) -> str:
    command: list[Any] = [sys.executable, "-m", "bench.gpu.part", model, file, *(["--tiny"] if tiny else [])]
    try:
        done = subprocess.run(command, cwd=ROOT, timeout=limit_s, check=False, stdout=sys.stderr)
    except subprocess.TimeoutExpired:
        return f"stopped after {limit_s:.0f} s"
    return "ended" if done.returncode == 0 else f"exit code {done.returncode}"


if __name__ == "__main__":
    main()
