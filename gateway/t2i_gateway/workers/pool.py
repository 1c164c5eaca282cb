"""The workers of a pool as the gateway sees them: a connection to each, who comes and goes, and their levels."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from t2i_gateway.workers.connection import Wiring, WorkerConnection
from t2i_gateway.workers.other_gateways import OtherGateways
from t2i_gateway.workers.outlier_detection import LOOK_EVERY_S, OutlierDetection
from t2i_policy.image_size import ImageSize
from t2i_policy.level import Level
from t2i_policy.outliers import EjectedReason
from t2i_policy.pool_view import WorkerView
from t2i_protos.v1 import worker_pb2

RETIRE_LIMIT_S = 600.0  # for requests of a worker that has left the pool


class WorkerPool:
    """The workers of one gateway. `clock`: seconds that never go back."""

    def __init__(
        self,
        addresses: Sequence[str],
        wiring: Wiring,
        on_ejection: Callable[[str], None],
        *,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._wiring = wiring
        self._clock = clock or asyncio.get_running_loop().time
        self._outliers = OutlierDetection(self._clock, on_ejection, on_change=self._changed)
        self._listeners: list[Callable[[], None]] = []
        self._levels: Mapping[str, Level] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._watching: dict[WorkerConnection, asyncio.Task[None]] = {}
        self._leaving: set[WorkerConnection] = set()
        self.connections: list[WorkerConnection] = []
        for address in addresses:
            self.add(address)

    def add(self, address: str) -> None:
        """Reach one more worker."""
        connection = WorkerConnection(
            address,
            self._wiring,
            self._clock,
            by_looks=lambda: self._outliers.now_s,
            on_change=self._changed,
            on_judged=self._settle,
        )
        self.connections.append(connection)
        self._watch(connection)

    def _watch(self, connection: WorkerConnection) -> None:
        if self._tasks is not None:
            self._watching[connection] = self._tasks.create_task(connection.run())

    def remove(self, address: str) -> None:
        """Send this worker nothing more; what it has may end, while it is heard and judged as before."""
        connection = next(one for one in self.connections if one.address == address)
        self.connections.remove(connection)
        self._leaving.add(connection)
        if self._tasks is not None:
            self._tasks.create_task(self._retire(connection))
        self._changed()

    async def _retire(self, connection: WorkerConnection) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(RETIRE_LIMIT_S):
                await connection.idle.wait()
        self._leaving.discard(connection)
        self._watching.pop(connection).cancel()
        await connection.close()

    def renew(self) -> None:
        """Reach every worker over a new channel: certificates changed. What runs on the old ones may end."""
        for connection in self.connections:
            connection.renew()

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` after every change of any worker's view, too."""
        self._listeners.append(listener)

    def _changed(self) -> None:
        for listener in self._listeners:
            listener()

    def assign(self, levels: Mapping[str, Level]) -> None:
        """The plan's level of each worker, by name: an affinity. Who tells its name later gets it at the next look."""
        self._levels = levels
        for connection in self.connections:
            if connection.level != levels.get(connection.name):
                connection.level = levels.get(connection.name)
                connection.changed()

    @property
    def views(self) -> tuple[WorkerView, ...]:
        """The snapshots of all workers that decisions see."""
        return tuple(connection.view for connection in self.connections)

    def views_of(self, model: str) -> tuple[WorkerView, ...]:
        """Those of workers that hold this model, or load it."""
        return tuple(view for connection in self.connections if (view := connection.view).model == model)

    @property
    def others(self) -> OtherGateways:
        """The other gateways that send to these workers."""
        return self._wiring.others

    @property
    def left_out(self) -> dict[str, EjectedReason]:
        """Why workers that say they are ready are left out or on trial, by name."""
        judged = {one.name: one.health.reason for one in self.connections if one.ready}
        return {name: reason for name, reason in judged.items() if reason is not EjectedReason.NONE}

    def description(self, model: str) -> worker_pb2.WorkerDescription | None:
        """What the workers that hold this model serve, from the first that is ready."""
        return next((one.description for one in self.connections if one.ready and one.model == model), None)

    def step_cost(self, size: ImageSize) -> float:
        """What a step of this size costs in steps of the default size, where it costs most."""
        return max([one.step_cost(size) for one in self.connections if one.ready], default=1.0)

    def by_name(self, name: str) -> WorkerConnection:
        """The connection of a view's name."""
        return next(connection for connection in self.connections if connection.name == name)

    async def run(self) -> None:
        """Watch and judge every worker until cancelled."""
        async with asyncio.TaskGroup() as self._tasks:
            for connection in self.connections:
                self._watch(connection)
            try:
                while True:
                    await asyncio.sleep(LOOK_EVERY_S)
                    self.look()
            finally:
                self._tasks = None

    def look(self) -> None:
        """Judge every worker. To be called every LOOK_EVERY_S."""
        self.assign(self._levels)
        self._outliers.look(self.connections, self._leaving)

    def _settle(self) -> None:
        self._outliers.settle(self.connections, self._leaving)

    async def close(self) -> None:
        """Close every connection."""
        for connection in (*self.connections, *self._leaving):
            await connection.close()
