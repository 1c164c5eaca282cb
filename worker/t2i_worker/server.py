"""A worker's life: bind, warm up, serve, drain on SIGTERM or SIGINT."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

import grpc

from t2i_policy.readiness import Readiness
from t2i_protos.v1 import worker_pb2, worker_pb2_grpc
from t2i_runtime.grpc_options import server_options
from t2i_runtime.health import HEALTH_SERVICE, ServerHealth
from t2i_runtime.input_images import MAX_ALL_BYTES
from t2i_runtime.listening import bind_server, serve_metrics
from t2i_runtime.process import announce, bound_address, drain, open_registry, stop_on_signals
from t2i_runtime.reflection import enable_reflection
from t2i_worker.auth import open_security
from t2i_worker.errors import EngineLost, StoppedEarly
from t2i_worker.health_following import follow_health, with_probes
from t2i_worker.held_model import HeldModel
from t2i_worker.metrics import WorkerMetrics
from t2i_worker.service import WorkerService
from t2i_worker.settings import WorkerSettings

log = logging.getLogger(__name__)
SERVICE = worker_pb2.DESCRIPTOR.services_by_name["Worker"].full_name
MAX_REQUEST_BYTES = MAX_ALL_BYTES + (1 << 20)
CLOSE_GRACE_S = 2.0


async def serve(settings: WorkerSettings, make_engine: Callable[[], Awaitable[HeldModel]]) -> None:
    """Serve until told to stop. The health service says NOT_SERVING until the engine is warm, then what it is.

    Raises:
        StoppedEarly: told to stop before that, or while it loads another model; threads that load may still run.
        EngineLost: only a new process helps.
    """
    stop = stop_on_signals()
    registry = open_registry()
    metrics = WorkerMetrics(registry)
    security = open_security(settings.tls_dir, settings.gateway_name, metrics)
    server = grpc.aio.server(options=server_options(MAX_REQUEST_BYTES), interceptors=security.interceptors)
    probed = grpc.aio.server(options=server_options())
    health = ServerHealth(SERVICE)
    await health.show(False)
    health.add_to(server, probed)
    service = WorkerService(settings.name, settings.group, metrics)
    worker_pb2_grpc.add_WorkerServicer_to_server(service, server)
    enable_reflection(server, (SERVICE, HEALTH_SERVICE))
    following = asyncio.create_task(security.run())
    try:
        port = security.bind(server, settings.listen)
        await server.start()
        await _start_probed(probed, settings.health_listen)
        metrics_port = serve_metrics(settings.metrics_listen, registry, lambda app: with_probes(app, service.readiness))
        engine = await _unless_stopped(make_engine(), stop)
        service.attach(engine)
        watching = asyncio.create_task(follow_health(engine, health.show))
        metrics_address = bound_address(settings.metrics_listen, metrics_port)
        announce(settings.announce, bound_address(settings.listen, port), metrics_address)
        log.info("worker %s serves %s on port %d", settings.name, engine.load().model or "the pool's own model", port)
        lost = await _until_told(stop, watching)
        await health.show(False)
        if lost is None:
            await drain(engine.drain(), settings.drain_s)
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


async def _unless_stopped(making: Awaitable[HeldModel], stop: asyncio.Event) -> HeldModel:
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
