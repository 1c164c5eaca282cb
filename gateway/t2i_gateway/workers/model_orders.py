"""Orders to hold another model: a worker whose place in the plan names one that it does not hold is told so.

Once for each revision of the plan, and again over each connection that is begun anew: a worker that restarted knows
nothing of an order. One that cannot be reached is told at the next look.
"""

import asyncio
import logging
from collections.abc import Callable
from math import inf
from typing import NamedTuple

import grpc

from t2i_gateway.workers.connection import LoadWatch, WorkerConnection
from t2i_gateway.workers.pool import WorkerPool

log = logging.getLogger(__name__)
LOOK_EVERY_S = 0.5
LOG_EVERY_S = 60.0
_REFUSED = {
    grpc.StatusCode.UNIMPLEMENTED,  # an older version
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.INVALID_ARGUMENT,
}


class ModelOrder(NamedTuple):
    """What a worker was told: the model, the plan's revision, and over which stream of its load it was heard then."""

    model: str
    revision: int
    heard: LoadWatch


class ModelOrders:
    """Used from one event loop. `revision`: of the plan that workers are placed by. `clock`: seconds, never back."""

    def __init__(
        self, workers: WorkerPool, revision: Callable[[], int], *, clock: Callable[[], float] | None = None
    ) -> None:
        self._workers = workers
        self._revision = revision
        self._clock = clock or asyncio.get_running_loop().time
        self._told: dict[WorkerConnection, ModelOrder] = {}
        self._logged_s = -inf

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        """Tell whoever holds another model than it should, and was not told yet."""
        there = self._workers.connections
        self._told = {worker: order for worker, order in self._told.items() if worker in there}
        due = {worker: order for worker in there if (order := self._due(worker)) is not None}
        await asyncio.gather(*(self._tell(worker, order) for worker, order in due.items()))

    def _due(self, worker: WorkerConnection) -> ModelOrder | None:
        level, heard = worker.level, worker.watch
        if level is None or heard is None or worker.description is None or level.model == worker.model:
            return None
        order = ModelOrder(level.model, self._revision(), heard)
        return None if self._told.get(worker) == order else order

    async def _tell(self, worker: WorkerConnection, order: ModelOrder) -> None:
        try:
            await worker.hold_model(order.model, order.revision)
        except grpc.aio.AioRpcError as error:
            self._log(worker, order, error)
            if error.code() not in _REFUSED:
                return
        else:
            log.info("worker %s is to hold the model %s", worker.name, order.model or "of the pool")
        self._told[worker] = order

    def _log(self, worker: WorkerConnection, order: ModelOrder, error: grpc.aio.AioRpcError) -> None:
        if self._clock() - self._logged_s < LOG_EVERY_S:
            return
        self._logged_s = self._clock()
        text = "worker %s does not take the order to hold the model %s: %s"
        log.warning(text, worker.name, order.model or "of the pool", error.code().name)
