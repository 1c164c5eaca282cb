"""A worker's life: bind, warm up, serve, drain on SIGTERM or SIGINT."""

import asyncio
import json
import logging
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry, ProcessCollector

from t2i_policy.readiness import Readiness
from t2i_protos.v1 import worker_pb2, worker_pb2_grpc
from t2i_runtime.grpc_options import server_options
from t2i_runtime.listening import bind_server, serve_metrics
from t2i_runtime.reflection import enable_reflection
from t2i_worker.auth import open_security
from t2i_worker.errors import EngineLost, StoppedEarly
from t2i_worker.health_following import follow_health, with_probes
from t2i_worker.jobs import Engine
from t2i_worker.metrics import WorkerMetrics
from t2i_worker.service import WorkerService
from t2i_worker.settings import WorkerSettings

log = logging.getLogger(__name__)
SERVICE = worker_pb2.DESCRIPTOR.services_by_name["Worker"].full_name
MAX_REQUEST_BYTES = 1 << 20
CLOSE_GRACE_S = 2.0
_STATUSES = {True: health_pb2.HealthCheckResponse.SERVING, False: health_pb2.HealthCheckResponse.NOT_SERVING}


async def serve(settings: WorkerSettings, make_engine: Callable[[], Awaitable[Engine]]) -> None:
    """Serve until told to stop. The health service says NOT_SERVING until the engine is warm, then what it is.

    Raises:
        StoppedEarly: told to stop before that; nothing was drawn, and threads that load a model may still run.
        EngineLost: only a new process helps.
    """
    stop = _stop_on_signals()
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    metrics = WorkerMetrics(registry)
    security = open_security(settings.tls_dir, settings.gateway_name, metrics)
    server = grpc.aio.server(options=server_options(MAX_REQUEST_BYTES), interceptors=security.interceptors)
    probed = grpc.aio.server(options=server_options())
    healthy = health.aio.HealthServicer()
    await _set_health(healthy, health_pb2.HealthCheckResponse.NOT_SERVING)
    service = WorkerService(settings.name, settings.group, metrics)
    worker_pb2_grpc.add_WorkerServicer_to_server(service, server)
    for one in (server, probed):
        health_pb2_grpc.add_HealthServicer_to_server(healthy, one)
    enable_reflection(server, (SERVICE, health.SERVICE_NAME))
    following = asyncio.create_task(security.run())
    try:
        port = security.bind(server, settings.listen)
        await server.start()
        await _start_probed(probed, settings.health_listen)
        metrics_port = serve_metrics(settings.metrics_listen, registry, lambda app: with_probes(app, service.readiness))
        engine = await _unless_stopped(make_engine(), stop)
        service.attach(engine)
        watching = asyncio.create_task(follow_health(engine, lambda ready: _set_health(healthy, _STATUSES[ready])))
        if settings.announce is not None:
            announce(settings.announce, _at(settings.listen, port), _at(settings.metrics_listen, metrics_port))
        log.info("worker %s serves on port %d", settings.name, port)
        lost = await _until_told(stop, watching)
        await _set_health(healthy, health_pb2.HealthCheckResponse.NOT_SERVING)
        if lost is None:
            await _drain(engine, settings.drain_s)
    finally:
        await server.stop(CLOSE_GRACE_S)
        await probed.stop(CLOSE_GRACE_S)
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following
    await engine.close()
    if lost is not None:
        raise EngineLost(f"the engine is lost to this process ({lost.reason})", lost.reason)


async def _until_told(stop: asyncio.Event, watching: asyncio.Task[Readiness]) -> Readiness | None:
    """Wait for the signal to stop, or for the engine's loss, which is returned."""
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait([stopping, watching], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if watching.done():
        return watching.result()
    watching.cancel()
    await asyncio.wait([watching])
    return None


async def _start_probed(probed: grpc.aio.Server, listen: str) -> None:
    """Health alone, without TLS: the kubelet's gRPC probes know none."""
    if listen:
        bind_server(probed, listen)
        await probed.start()


async def _unless_stopped(making: Awaitable[Engine], stop: asyncio.Event) -> Engine:
    """The engine.

    Raises:
        StoppedEarly: the stop came first.
    """
    made, stopped = asyncio.ensure_future(making), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((made, stopped), return_when=asyncio.FIRST_COMPLETED)
        if not made.done():
            raise StoppedEarly("told to stop before the model was ready")
        return made.result()
    finally:
        made.cancel()
        stopped.cancel()


def _at(listen: str, port: int) -> str:
    """The address that was asked for, with the port that was bound."""
    return f"{listen.rpartition(':')[0]}:{port}"


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


async def _set_health(healthy: health.aio.HealthServicer, status: int) -> None:
    for name in ("", SERVICE):
        await healthy.set(name, status)


async def _drain(engine: Engine, limit_s: float) -> None:
    log.info("draining")
    with suppress(TimeoutError):
        async with asyncio.timeout(limit_s):
            await engine.drain()


def announce(path: Path, address: str, metrics_address: str) -> None:
    """Write where this process serves, in one rename: a reader sees all of it or nothing."""
    side = path.with_name(f".{path.name}.part")
    side.write_text(json.dumps({"address": address, "metrics_address": metrics_address, "pid": os.getpid()}))
    side.replace(path)
