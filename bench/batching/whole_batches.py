"""Workers that run whole batches, under the two dispatchers of the lineage's ablation.

A batch once started takes steps x step_s[size - 1], and nobody joins it; the simulator's workers are step-level, so it
cannot answer for these.

- proteus: random routing; a worker waits while one more request would still let the head of its queue meet the
  deadline (non-work-conserving), else it runs what it has
- route-and-batch: a free worker runs whatever waits. Low load: round robin. High load (most workers busy): to the
  worker whose unfilled batch has waited longest
"""

import heapq
import itertools
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from t2i_policy.request.placement import FILL_FROM_OCCUPANCY
from t2i_simulator.lineage import BASE_STEPS, STEP_ALONE_S, profiles

NUM_WORKERS = 8
DROP_AT = 2.0  # SLOs
STEP_S = profiles()["sdxl-a10g"].step_s
CAP = len(STEP_S)
SLO_S = 5 * BASE_STEPS * STEP_ALONE_S


@dataclass(slots=True)
class BatchingWorker:
    """When those that wait arrived, oldest first, and whether a batch may start."""

    waiting: deque[float] = field(default_factory=deque)
    free: bool = True


class WholeBatches:
    """A pool of such workers under one of the two dispatchers; `run` gives each request's latency, inf if dropped."""

    def __init__(self, steps: int, holding: bool, seed: int) -> None:
        self._steps = steps
        self._holding = holding  # proteus
        self._workers = [BatchingWorker() for _ in range(NUM_WORKERS)]
        self._turn = itertools.cycle(range(NUM_WORKERS))
        self._random = random.Random(seed)
        self._events: list[tuple[float, int, BatchingWorker, bool]] = []  # instant, number, worker, a batch ends
        self._numbers = itertools.count()
        self.latencies_s: list[float] = []

    def run(self, arrived_s: Sequence[float]) -> list[float]:
        for at_s in arrived_s:
            self._until(at_s)
            worker = self._route()
            worker.waiting.append(at_s)
            self._look(worker, at_s)
        self._until(float("inf"))
        return self.latencies_s

    def _route(self) -> BatchingWorker:
        workers = self._workers
        if self._holding:
            return self._random.choice(workers)
        if sum(not worker.free for worker in workers) < FILL_FROM_OCCUPANCY * NUM_WORKERS:
            return workers[next(self._turn)]
        unfilled = [worker for worker in workers if 0 < len(worker.waiting) < CAP]
        if unfilled:
            return min(unfilled, key=lambda worker: worker.waiting[0])
        return min(workers, key=lambda worker: len(worker.waiting))

    def _until(self, at_s: float) -> None:
        while self._events and self._events[0][0] <= at_s:
            now_s, _, worker, ends = heapq.heappop(self._events)
            worker.free = worker.free or ends
            self._look(worker, now_s)

    def _look(self, worker: BatchingWorker, now_s: float) -> None:
        while worker.waiting and now_s - worker.waiting[0] > DROP_AT * SLO_S:
            worker.waiting.popleft()
            self.latencies_s.append(float("inf"))
        size = min(len(worker.waiting), CAP)
        if not worker.free or not size:
            return
        if self._holding and size < CAP:
            until_s = worker.waiting[0] + SLO_S - self._batch_s(size + 1)
            if now_s < until_s:
                heapq.heappush(self._events, (until_s, next(self._numbers), worker, False))
                return
        ends_s = now_s + self._batch_s(size)
        self.latencies_s += [ends_s - worker.waiting.popleft() for _ in range(size)]
        worker.free = False
        heapq.heappush(self._events, (ends_s, next(self._numbers), worker, True))

    def _batch_s(self, size: int) -> float:
        return self._steps * STEP_S[size - 1]
