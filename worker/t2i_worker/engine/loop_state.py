"""The step loop as others see it: without background requests, which make nobody wait for more than a step."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, inf

from t2i_policy.batch_limit import OwedSteps, longest_step_s
from t2i_worker.engine.batching import StepTimes, steps_to_place
from t2i_worker.engine.request import RunningRequest


@dataclass(frozen=True, slots=True)
class LoopState:
    """The loop after its last step boundary. `steps_left` sums over running and waiting requests, in steps of the
    default size.
    """

    running: int
    waiting: int
    steps_left: int
    batch_cap: int
    step_s: tuple[float, ...]
    steps_to_place: int = 0  # steps until a request that arrives now could join
    longest_step_s: float = inf  # that lets all of them end by their deadlines


def loop_state(
    batch: Sequence[RunningRequest], line: Iterable[RunningRequest], cap: int, *, times: StepTimes, now_s: float
) -> LoopState:
    """Of the requests in the batch and in line."""
    running, waiting = ([one for one in part if not one.background] for part in (batch, line))
    requests = [*running, *waiting]
    left = [ceil(request.owed_steps) for request in requests]
    return LoopState(
        running=len(running),
        waiting=len(waiting),
        steps_left=round(sum(request.owed_steps * request.step_cost for request in requests)),
        batch_cap=cap,
        step_s=tuple(times.default_s),
        steps_to_place=steps_to_place(left, min(cap, len(left))) if places_of(requests) >= cap else 0,
        longest_step_s=longest_step_s(_owed(running, now_s), times.usual_s(counts_of(running))),
    )


def _owed(running: Iterable[RunningRequest], now_s: float) -> list[OwedSteps]:
    """Of those that have a deadline."""
    urgent = [(request, request.deadline_s) for request in running]
    return [OwedSteps(at_s - now_s, request.owed_steps) for request, at_s in urgent if at_s is not None]


def places_of(requests: Iterable[RunningRequest]) -> float:
    """Of the batch, that they take."""
    return sum(request.step_cost for request in requests)


def counts_of(requests: Iterable[RunningRequest]) -> Mapping[float, int]:
    """How many there are, by what their steps cost."""
    return Counter(request.step_cost for request in requests)
