"""What lies with the workers, where each keeps latents of its own: every worker is followed as long as it is there.

A worker tells all that it holds and then each change (`WatchLatents`). So a gateway that was restarted, and one beside
it that sent the requests, know the same. While a worker is not heard, nothing is promised from it.
"""

import asyncio
import logging
from contextlib import suppress

import grpc

from t2i_gateway.neighbours import NeighbourIndex
from t2i_gateway.workers.connection import WorkerConnection
from t2i_gateway.workers.pool import WorkerPool
from t2i_protos.v1 import worker_pb2

log = logging.getLogger(__name__)
LOOK_EVERY_S = 0.25
PAUSE_S = 0.5
WITHOUT_PAUSE_S = 30.0  # until a worker that keeps none of its own is asked again: it may be another version by then
FIRST_LIMIT_S = 20.0  # for the first message; each promises the next one
PATIENCE = 4  # times the promised interval


async def follow_workers(workers: WorkerPool, neighbours: NeighbourIndex) -> None:
    """Follow every worker of the pool until cancelled; workers come and go."""
    following: dict[WorkerConnection, asyncio.Task[None]] = {}
    async with asyncio.TaskGroup() as group:
        while True:
            for connection in workers.connections:
                if connection not in following:
                    following[connection] = group.create_task(_follow(connection, neighbours))
            for connection in following.keys() - set(workers.connections):
                following.pop(connection).cancel()
            await asyncio.sleep(LOOK_EVERY_S)


async def _follow(connection: WorkerConnection, neighbours: NeighbourIndex) -> None:
    """Follow one worker until it leaves the pool."""
    pause_s = PAUSE_S
    while True:
        if connection.description is not None:
            name = connection.name
            keeps_own = True
            try:
                keeps_own = await _read(connection, name, neighbours)
            finally:
                if keeps_own:
                    neighbours.lost(name)
            pause_s = PAUSE_S if keeps_own else WITHOUT_PAUSE_S
        await asyncio.sleep(pause_s)


async def _read(connection: WorkerConnection, name: str, neighbours: NeighbourIndex) -> bool:
    """Take in what the worker tells, until the stream ends or falls silent, or a newer connection is there.

    False: it keeps no latents of its own.
    """
    neighbours.lost(name)
    number, call, limit_s = connection.number, connection.watch_latents(), FIRST_LIMIT_S
    try:
        while number == connection.number:
            async with asyncio.timeout(limit_s):
                changes = await call.read()
            if not isinstance(changes, worker_pb2.LatentChanges):
                return True
            neighbours.told(name, changes)
            limit_s = PATIENCE * changes.next_within_ms / 1e3 or FIRST_LIMIT_S
    except grpc.aio.AioRpcError as error:
        log.info("latents of worker %s: %s", name, error.code().name)
        return error.code() is not grpc.StatusCode.UNIMPLEMENTED
    except TimeoutError:
        log.warning("latents of worker %s: it fell silent", name)
    except ValueError as error:
        log.warning("latents of worker %s: what it tells is not understood: %s", name, error)
    finally:
        with suppress(asyncio.InvalidStateError):
            call.cancel()
    return True
