"""A gateway's life: restore the catalogue, serve, drain on SIGTERM or SIGINT."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any

import grpc

from t2i_api.pool import Pool
from t2i_cache.stores import LatentStore, StoreLimits, open_store
from t2i_gateway.audits.audit_loop import AuditLoop
from t2i_gateway.audits.auditor_connection import AuditorConnection
from t2i_gateway.audits.corrections_feed import CorrectionsFeed
from t2i_gateway.audits.sampling import AuditSamples
from t2i_gateway.auth import GatewaySecurity, open_security, warn_of_gaps
from t2i_gateway.by_model import ModelDispatchers
from t2i_gateway.control import ControlService
from t2i_gateway.director import Director
from t2i_gateway.dispatch import Dispatcher
from t2i_gateway.doors.app import HttpDoor, make_app
from t2i_gateway.doors.server import HttpServer
from t2i_gateway.embeddings import Embeddings
from t2i_gateway.intake import Intake
from t2i_gateway.metrics import GatewayMetrics
from t2i_gateway.model_names import ModelNames
from t2i_gateway.neighbours import NeighbourIndex
from t2i_gateway.parts import Parts
from t2i_gateway.planning_loop import PlanningLoop
from t2i_gateway.playground.routes import Playground, playground_routes
from t2i_gateway.results import open_results
from t2i_gateway.safety import open_safety
from t2i_gateway.service import SERVICE, TextToImageService, add_to_server
from t2i_gateway.settings import WITH_WORKERS, GatewaySettings
from t2i_gateway.signing import open_signer
from t2i_gateway.tenant_rates import TenantRates
from t2i_gateway.workers.connection import CHANNEL_OPTIONS, Wiring
from t2i_gateway.workers.latents import follow_workers
from t2i_gateway.workers.model_orders import ModelOrders
from t2i_gateway.workers.pool import WorkerPool
from t2i_policy.policies import PromptAware
from t2i_policy.profile import LevelProfile
from t2i_policy.request.decide import build_rules
from t2i_protos.v1 import control_pb2_grpc
from t2i_runtime.errors import AddressUnusable
from t2i_runtime.grpc_options import server_options
from t2i_runtime.health import HEALTH_SERVICE, ServerHealth
from t2i_runtime.input_images import MAX_ALL_BYTES
from t2i_runtime.listening import bind_server, listening_socket, serve_metrics
from t2i_runtime.process import announce, bound_address, drain, open_registry, spare_collector, stop_on_signals
from t2i_runtime.reflection import enable_reflection
from t2i_runtime.tls.transport import channel_opener

log = logging.getLogger(__name__)
MAX_REQUEST_BYTES = MAX_ALL_BYTES * 3 // 2 + (256 << 10)  # above what is taken: gRPC's own refusal names no field
CLOSE_GRACE_S = 2.0
HEALTH_EVERY_S = 0.25
LIVENESS = "liveness"
MAX_CONNECTION_AGE_S = 600  # a client whose certificate was withdrawn is gone by then; running streams may end
SERVER_OPTIONS = (
    *server_options(MAX_REQUEST_BYTES),
    ("grpc.max_connection_age_ms", 1000 * MAX_CONNECTION_AGE_S),
)


async def serve(settings: GatewaySettings, pool: Pool, profile: LevelProfile) -> None:
    """Serve until told to stop."""
    stop = stop_on_signals()
    registry = open_registry()
    metrics = GatewayMetrics(registry)
    security = open_security(settings, pool.spec.security, metrics)
    warn_of_gaps(settings, pool.spec.security)
    parts = _make_parts(settings, pool, profile, metrics=metrics, security=security)
    auditor = _open_auditor(settings, parts, security)
    director = Director(parts)
    server = grpc.aio.server(options=SERVER_OPTIONS)
    health = ServerHealth(SERVICE)
    health.add_to(server)
    wants_playground = settings.playground or pool.spec.gateway.playground == "Enabled"
    playground = Playground(pool, parts, director) if wants_playground else None
    intake = playground.intake if playground is not None else Intake(director, pool, metrics)
    add_to_server(TextToImageService(intake, metrics, security.identities), server)

    def is_ready() -> bool:
        """A worker on trial is one that may have a request: without any it could never prove itself."""
        return not director.draining and any(view.ready for view in parts.workers.views)

    results = open_results(pool.spec.gateway.results if settings.listen_http else None, settings.results_dir, metrics)
    enable_reflection(server, (SERVICE, HEALTH_SERVICE))
    control = grpc.aio.server(options=server_options())
    try:
        port = bind_server(server, settings.listen, security.credentials)
        await _start_control(control, settings, health, parts)
        door = HttpDoor(pool, intake, security.identities, metrics, is_ready, results)
        http = _open_http(settings, security, door, playground)
        metrics_port = serve_metrics(settings.metrics_listen, registry)
    except AddressUnusable:
        await asyncio.gather(server.stop(None), control.stop(None))
        raise
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(work) for work in (*_work(settings, parts), security.run(), *_audits(auditor, parts))
        ]
        await parts.neighbours.restore()
        await server.start()
        if results is not None and results.keys is not None:
            tasks.append(group.create_task(results.keys.run()))
        tasks.append(group.create_task(_report_health(health, is_ready, parts.workers, metrics)))
        if playground is not None:
            tasks.append(group.create_task(playground.run()))
        serving_http = group.create_task(http.run_until_closed()) if http is not None else None
        spare_collector()
        metrics_address = bound_address(settings.metrics_listen, metrics_port)
        http_address = bound_address(settings.listen_http, http.port) if http is not None else ""
        announce(settings.announce, bound_address(settings.listen, port), metrics_address, http_address)
        log.info("the gateway serves on port %d%s", port, f", HTTP on {http.port}" if http is not None else "")
        await stop.wait()
        await drain(director.drain(), settings.drain_s)
        if http is not None:
            http.close()
        await server.stop(CLOSE_GRACE_S)
        if serving_http is not None:
            await serving_http
        await control.stop(CLOSE_GRACE_S)
        for task in tasks:
            task.cancel()
    await _close(parts)
    if auditor is not None:
        await auditor.close()


def _audited_share(settings: GatewaySettings, pool: Pool) -> float:
    """Of approximated images. Without an auditor none: they would be drawn for nobody."""
    part = pool.spec.quality
    if part is None or not settings.auditor:
        if part is not None or settings.auditor:
            log.warning("nothing is audited: that needs spec.quality in the pool and --auditor")
        return 0.0
    return part.audited_share


def _open_auditor(settings: GatewaySettings, parts: Parts, security: GatewaySecurity) -> AuditorConnection | None:
    if not parts.samples.share:
        return None
    auditor = AuditorConnection(settings.auditor, channel_opener(security.workers, settings.worker_name, ()))
    if security.workers is not None:
        security.workers.on_change(lambda _: auditor.renew())
    return auditor


def _audits(auditor: AuditorConnection | None, parts: Parts) -> tuple[Coroutine[Any, Any, None], ...]:
    """The tasks of audits: none without an auditor."""
    part = parts.spec.quality
    if auditor is None or part is None:
        return ()
    audits = AuditLoop(parts, auditor).run()
    return (audits, CorrectionsFeed(auditor, parts.planning, parts.metrics).run()) if part.recalibrate else (audits,)


def _make_parts(
    settings: GatewaySettings,
    pool: Pool,
    profile: LevelProfile,
    *,
    metrics: GatewayMetrics,
    security: GatewaySecurity,
) -> Parts:
    spec = pool.spec
    policy = PromptAware(pinned=spec.pinned_workers)
    slo = spec.slo
    rules = build_rules(spec.ladder, profile, slo.latency_s, slo.max_loss, slo.harmless_loss)
    open_channel = channel_opener(security.workers, settings.worker_name, CHANNEL_OPTIONS)
    part = spec.gateway.model_copy(update={"replicas": settings.gateways or spec.gateway.replicas})
    digests = {model: profile.section(model).model_digest for model in ("", *spec.models)}
    wiring = Wiring(open_channel, alone=part.replicas == 1, profiled_digests=digests)
    workers = WorkerPool(settings.workers, wiring, metrics.count_ejection)
    if security.workers is not None:
        security.workers.on_change(lambda _: workers.renew())
    if profile.lacks_diversity:
        log.warning(
            "the profile does not say how much images of different seeds differ, so a prompt that is asked again does "
            "not start from a cached latent: measure it with two seeds (t2ictl profile)"
        )
    names = ModelNames.of(pool)
    by_model = {
        model: Dispatcher(policy, workers, part, metrics, model=model, name=names.name_of(model))
        for model in ("", *spec.models)
    }
    dispatchers = ModelDispatchers(by_model, workers.others)
    return Parts(
        pool=pool.metadata.name,
        spec=spec,
        names=names,
        embeddings=Embeddings(settings.embedder, settings.models_dir, metrics, profile.embedder_digest),
        neighbours=NeighbourIndex(pool, _open_store(settings, pool), metrics),
        workers=workers,
        dispatchers=dispatchers,
        planning=PlanningLoop(policy, rules, dispatchers, metrics),
        safety=open_safety(pool, {"prompt": settings.safety_prompt_dir, "image": settings.safety_image_dir}, metrics),
        signer=open_signer(pool, settings.c2pa_dir, metrics),
        metrics=metrics,
        samples=AuditSamples(_audited_share(settings, pool), metrics),
        rates=TenantRates(part.rate_limits, part.replicas, time.monotonic),
    )


def _open_store(settings: GatewaySettings, pool: Pool) -> LatentStore | None:
    """The store that workers share; None = each worker keeps its own latents."""
    if settings.store == WITH_WORKERS:
        return None
    cache = pool.spec.cache
    limits = StoreLimits(cache.capacity_bytes, cache.ttl_seconds, cache.max_reuses)
    return open_store(settings.store, settings.store_pool or pool.metadata.name, limits)


def _work(settings: GatewaySettings, parts: Parts) -> tuple[Coroutine[Any, Any, None], ...]:
    """The tasks that go on beside the requests."""
    moves = parts.spec.mix.moves == "Reload"
    usual = (
        *(parts.workers.run(), parts.neighbours.run(), parts.embeddings.run(), _plan(settings, parts)),
        *parts.safety.work(),
        *([ModelOrders(parts.workers, lambda: parts.planning.plan.revision).run()] if moves else []),
        *([] if parts.signer is None else [parts.signer.keys.run()]),
    )
    return (*usual, follow_workers(parts.workers, parts.neighbours)) if parts.neighbours.spread else usual


def _plan(settings: GatewaySettings, parts: Parts) -> Coroutine[Any, Any, None]:
    """Plan here, or follow the operator's plans; only the latter needs the Kubernetes client."""
    if settings.kubernetes is None:
        return parts.planning.run(parts.workers)
    from t2i_gateway.plan_feed import follow

    return follow(settings.kubernetes, parts.planning, parts.workers, parts.metrics)


async def _start_control(
    server: grpc.aio.Server, settings: GatewaySettings, health: ServerHealth, parts: Parts
) -> None:
    """Health without TLS for the kubelet, and Control for the operator; `liveness` = the process answers."""
    if not settings.control_listen:
        return
    await health.show_alive(LIVENESS)
    health.add_to(server)
    control_pb2_grpc.add_ControlServicer_to_server(ControlService(parts), server)
    bind_server(server, settings.control_listen)
    await server.start()


async def _report_health(
    health: ServerHealth, is_ready: Callable[[], bool], workers: WorkerPool, metrics: GatewayMetrics
) -> None:
    """SERVING while it takes requests and some worker may have one; how many tasks there are."""
    while True:
        await health.show(is_ready())
        metrics.tasks.set(len(asyncio.all_tasks()))
        metrics.show_left_out(workers.left_out.values())
        await asyncio.sleep(HEALTH_EVERY_S)


def _open_http(
    settings: GatewaySettings, security: GatewaySecurity, door: HttpDoor, playground: Playground | None
) -> HttpServer | None:
    """The HTTP door, which listens but does not answer yet; None = it is not wanted.

    Raises:
        AddressUnusable: it cannot be listened on.
    """
    if not settings.listen_http:
        return None
    more = playground_routes(playground, door.identities) if playground is not None else ()
    return HttpServer(make_app(door, more), listening_socket(settings.listen_http), security.tls)


async def _close(parts: Parts) -> None:
    await parts.workers.close()
    parts.embeddings.close()
    await parts.neighbours.close()
    await parts.safety.close()
    if parts.signer is not None:
        parts.signer.close()
