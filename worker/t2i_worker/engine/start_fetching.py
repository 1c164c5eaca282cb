"""Fetching the start latent of a job: how long it may take, and how the job's thread hears of it."""

import asyncio
from concurrent.futures import Future

from t2i_cache.fetching import FetchReason
from t2i_worker.engine.loop_state import LoopState
from t2i_worker.latents import StartLatent

MIN_FETCH_LIMIT_S = 0.25  # on small models a step is shorter than a disk read on a busy machine
MIN_OWN_FETCH_LIMIT_S = 0.5  # a disk of the worker's own has stalls, not outages


def fetch_limit_s(state: LoopState, skipped_steps: int, from_own_store: bool) -> float:
    """Beyond the time that the job waits for a place in the batch anyway: one step, as a store for all may be out; from
    a store of the worker's own what the latent saves."""
    step_s = state.step_s[-1] if state.step_s else 0.0
    wait_s = max(MIN_FETCH_LIMIT_S, step_s)
    if from_own_store:
        wait_s = max(MIN_OWN_FETCH_LIMIT_S, skipped_steps * step_s)
    return wait_s + state.steps_to_place * step_s


def pass_on(start: "Future[StartLatent]", fetching: "asyncio.Task[StartLatent]") -> None:
    """A fetch that failed or was cancelled means noise; the job's thread must not wait for ever."""
    failed = fetching.cancelled() or fetching.exception() is not None
    start.set_result(StartLatent(None, 0, FetchReason.MISSING) if failed else fetching.result())
