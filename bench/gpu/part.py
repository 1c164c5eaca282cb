"""One model in a process of its own: `python -m bench.gpu.part MODEL FILE [--tiny]`. It may be killed at any time."""

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from bench.gpu.measure import GpuBenchPlan, ModelBench
from bench.gpu.models import DENOISERS, build
from t2i_testing_kit.tiny_pipelines.families import FAMILIES
from t2i_worker.pipelines import LoadedPipeline
from t2i_worker.pipelines.loading import denoiser_of

TINY = GpuBenchPlan(sides=(32,), batches=(1, 2), steps=2, batch=2, rounds=1, compiler="eager")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=DENOISERS)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    device = torch.device("cpu" if options.tiny else "cuda")
    plan = TINY if options.tiny else GpuBenchPlan()
    with options.rows.open("a") as file:

        def give(row: Mapping[str, Any]) -> None:
            file.write(json.dumps(row) + "\n")
            file.flush()

        began_s = time.perf_counter()
        stock = build(options.model, device, options.tiny)
        pipeline = LoadedPipeline(stock, denoiser_of(type(stock)), plan.sides[0], plan.sides[0])
        seconds = time.perf_counter() - began_s
        give({"model": options.model, "mode": "eager", "what": "built", "seconds": seconds})
        ModelBench(options.model, pipeline, FAMILIES[options.model].guidance, plan, give).run()


if __name__ == "__main__":
    main()
