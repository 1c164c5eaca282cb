"""What forecast steps cost: those who forecast, and those who compute beside them in the same batch."""

import asyncio
import statistics
import time
from dataclasses import replace
from typing import Any

from bench.engine.rig import BATCH, EngineRig, draw, timed
from t2i_policy.level import Level
from t2i_worker.engine.diffusion import DiffusionEngine
from t2i_worker.jobs import Finished

EVERY = 8  # one step of so many is computed, after the first two


async def compare_forecasting(rig: EngineRig, rounds: int) -> dict[str, Any]:
    """Medians over rounds, in which all ways take turns:

    compute_beside_forecasts  time of half a batch of exact requests beside half that forecasts / with nobody beside
    compute_beside_computing  the same beside half a batch of exact requests
    forecast_step_cpu_ms      CPU of a forecast step: a run that forecasts, less one of as many computed steps alone
    computed_step_cpu_ms      of a computed step, of the same runs
    """
    engine, half = rig.engine(BATCH), BATCH // 2
    exact, forecast = Level(0, rig.steps), Level(0, rig.steps, forecast=EVERY)
    computed = sum(forecast.computes(step, 0) for step in range(rig.steps))
    short = Level(0, computed)
    beside: dict[str, list[float]] = {"nobody": [], "forecasts": [], "exact": []}
    cpu: dict[Level, list[float]] = {exact: [], forecast: [], short: []}
    for level in cpu:
        await _draw_at(rig, engine, level)
    for _ in range(rounds):
        for name, others in (("nobody", []), ("forecasts", [forecast] * half), ("exact", [exact] * half)):
            beside[name].append(await _half(rig, engine, half, others))
        for level, spent in cpu.items():
            began = time.process_time()
            await _draw_at(rig, engine, level)
            spent.append(time.process_time() - began)
    await engine.close()
    alone_s = statistics.median(beside["nobody"])
    exact_s, forecast_s, short_s = (statistics.median(spent) for spent in cpu.values())
    return {
        "compute_beside_forecasts": statistics.median(beside["forecasts"]) / alone_s,
        "compute_beside_computing": statistics.median(beside["exact"]) / alone_s,
        "forecast_step_cpu_ms": 1e3 * (forecast_s - short_s) / (rig.steps - computed),
        "computed_step_cpu_ms": 1e3 * (exact_s - short_s) / (rig.steps - computed),
    }


async def _half(rig: EngineRig, engine: DiffusionEngine, half: int, others: list[Level]) -> float:
    """Seconds until the exact ones have their images; the others may go on."""
    exact = [timed(draw(engine, rig.job())) for _ in range(half)]
    tasks = [asyncio.create_task(_draw_at(rig, engine, level)) for level in others]
    took_s = max(await asyncio.gather(*exact))
    await asyncio.gather(*tasks)
    return took_s


async def _draw_at(rig: EngineRig, engine: DiffusionEngine, level: Level) -> Finished:
    return await draw(engine, replace(rig.job(), level=level))
