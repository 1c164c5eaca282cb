"""Levels to measure where the pool names none: the paper's skips, and what may beat them.

Not every model draws at all of them: distilled ones have no guidance to leave out, and some samplers forecast nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from t2i_policy.frontier import paper_levels
from t2i_policy.level import LEAST_FORECAST_STEPS, Level
from t2i_profiler.errors import MeasurementFailed
from t2i_profiler.worker_client import IN_CLEAR, OpenChannel, connect_workers

SHORT_SHARES = (0.7, 0.5, 0.35)
SOLVED_SHARES = (0.5, 0.35)
STRIDES = (2, 3, 4)
SOLVER = "unipc"


def candidate_levels(base_steps: int) -> tuple[Level, ...]:
    """Exact among them, each once."""
    return tuple(dict.fromkeys(_candidates(base_steps)))


def _candidates(steps: int) -> Iterator[Level]:
    yield Level(0, steps)
    yield from paper_levels(steps)
    yield from (Level(0, max(1, round(share * steps))) for share in SHORT_SHARES)
    yield from (Level(0, max(1, round(share * steps)), solver=SOLVER) for share in SOLVED_SHARES)
    half, third = steps // 2, steps // 3
    if 0 < half < steps:
        yield Level(0, steps, guided_steps=half)
    if steps < LEAST_FORECAST_STEPS:
        return
    yield from (Level(0, steps, forecast=stride) for stride in STRIDES)
    yield Level(0, steps, forecast=2, guided_steps=half)
    yield Level(0, steps, forecast=2, guided_steps=third)
    skipped = 3 * steps // 10
    if skipped and steps - skipped >= LEAST_FORECAST_STEPS:
        yield Level(skipped, steps, forecast=2)


@dataclass(frozen=True, slots=True)
class RefusedLevel:
    """A level that the model does not draw at, and the worker's reason."""

    level: Level
    reason: str


async def find_refused(
    addresses: Sequence[str], levels: Sequence[Level], yields: bool = False, open_channel: OpenChannel = IN_CLEAR
) -> tuple[RefusedLevel, ...]:
    """Draw once at every candidate, from noise, and see which are refused.

    Raises:
        MeasurementFailed: a worker failed for another reason.
    """
    refused = []
    async with connect_workers(addresses[:1], yields, open_channel) as (worker,):
        for level in levels:
            try:
                await worker.draw(worker.order("a photo", 0, replace(level, skipped_steps=0)))
            except MeasurementFailed as error:
                if error.code != "INVALID_ARGUMENT":
                    raise
                refused.append(RefusedLevel(level, str(error)))
    return tuple(refused)
