"""How far the engine is from the stock pipeline of the installed diffusers, for one family."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from diffusers import PNDMScheduler
from torch import Tensor

from t2i_testing_kit.tiny_pipelines.families import FAMILIES
from t2i_testing_kit.tiny_pipelines.in_engine import EngineRun, ResumeFrom, TinyEngine
from t2i_testing_kit.tiny_pipelines.stock import StockRun, TinyRequest, load_stock, stock_run


@dataclass(frozen=True)
class FamilyFigures:
    """`alone_max` is the largest difference of final latents to stock; the others are in parts of their deviation.

    `resumed_of_std` has a figure for each K. `shared_forwards` counts forwards of more than one request of the batch.
    """

    name: str
    pipeline: str
    scheduler: str
    alone_max: float
    alone_pixels_max: int
    mixed_max_of_std: float
    mixed_pixels_max: int
    shared_forwards: int
    resumed_of_std: Mapping[int, float]


def mixed_requests(name: str, takes_negative: bool) -> list[TinyRequest]:
    """Three that differ in prompt, seed, and where the family allows in steps, guidance and negative prompt."""
    family = FAMILIES[name]
    fewer, more = (0, 0) if family.fixed_steps else (-1, 1)
    guidance = 1.0 if family.guidance > 1 else family.guidance
    return [
        TinyRequest("a red circle left of the blue square", seed=1),
        TinyRequest(
            "two green squares", "red of the left" if takes_negative else "", seed=2, steps=family.steps + fewer
        ),
        TinyRequest("the blue circle above a square", seed=3, steps=family.steps + more, guidance=guidance),
    ]


def measure_family(name: str, folder: Path) -> FamilyFigures:
    """Stock runs and the engine's: each alone, all in one batch with a resumed one, and resumed alone at each K."""
    stock, engine = load_stock(folder), TinyEngine(name, folder)
    takes_negative = FAMILIES[name].negative and "negative_prompt" in inspect.signature(type(stock).__call__).parameters
    requests = mixed_requests(name, takes_negative)
    wanted = [stock_run(stock, name, request) for request in requests]
    alone = [_ended(engine.draw([request]))[0] for request in requests]
    skipped = sorted({1, FAMILIES[name].steps // 2})
    starts = {k: ResumeFrom(k, wanted[0].latents[_call_of(stock.scheduler, k)]) for k in skipped}
    # Beside them one that starts from another's image; alone it is what it must be in the batch.
    other = ResumeFrom(1, wanted[1].final)
    expected = _ended(engine.draw([requests[0]], {0: other}))[0]
    mixed = _ended(engine.draw([*requests, requests[0]], {3: other}))
    references: list[StockRun | EngineRun] = [*wanted, expected]
    shared = sum(count for size, count in engine.batch_sizes.items() if size > 1)
    resumed = {k: engine.resume(requests[0], start) for k, start in starts.items()}
    return FamilyFigures(
        name=name,
        pipeline=type(stock).__name__,
        scheduler=type(stock.scheduler).__name__,
        alone_max=max(_apart(run.final, one.final) for run, one in zip(alone, wanted, strict=True)),
        alone_pixels_max=max(_pixels_apart(run, one) for run, one in zip(alone, wanted, strict=True)),
        mixed_max_of_std=max(
            _apart(run.final, one.final) / one.final.std().item() for run, one in zip(mixed, references, strict=True)
        ),
        mixed_pixels_max=max(_pixels_apart(run, one) for run, one in zip(mixed, references, strict=True)),
        shared_forwards=shared,
        resumed_of_std={
            k: _apart(final, wanted[0].final) / wanted[0].final.std().item() for k, final in resumed.items()
        },
    )


def _call_of(scheduler: Any, step: int) -> int:
    """The scheduler's call that this step begins with: two calls a step at order 2, and for PNDM's second step."""
    return step + 1 if isinstance(scheduler, PNDMScheduler) else step * int(getattr(scheduler, "order", 1))


def _ended(runs: list[EngineRun]) -> list[EngineRun]:
    for run in runs:
        if run.error is not None:
            raise run.error
    return runs


def _apart(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())


def _pixels_apart(run: EngineRun, other: StockRun | EngineRun) -> int:
    return int(np.abs(run.pixels.astype(np.int16) - other.pixels).max())
