"""An auditor's life: bind, load the judge, serve until SIGTERM or SIGINT. Audits that are under way then are lost."""

import asyncio
import logging
from contextlib import suppress
from functools import partial
from pathlib import Path

import grpc

from t2i_api.audits import AuditsPart
from t2i_auditor.book import AuditBook
from t2i_auditor.errors import AuditorUnusable
from t2i_auditor.judging import PairJudge
from t2i_auditor.metrics import AuditorMetrics
from t2i_auditor.service import MAX_IMAGE_BYTES, AuditControlService, AuditorService
from t2i_auditor.settings import AuditorSettings
from t2i_policy.corrections import (
    NO_CORRECTIONS,
    Corrections,
    CorrectionsInvalid,
    parse_corrections,
    render_corrections,
)
from t2i_policy.profile import LevelProfile
from t2i_protos.v1 import auditor_pb2, auditor_pb2_grpc
from t2i_runtime.grpc_options import server_options
from t2i_runtime.health import HEALTH_SERVICE, ServerHealth
from t2i_runtime.listening import bind_server, serve_metrics
from t2i_runtime.process import announce, bound_address, open_registry, stop_on_signals
from t2i_runtime.reflection import enable_reflection
from t2i_runtime.tls.certificates import Shown
from t2i_runtime.tls.guarded_port import open_guarded_port

log = logging.getLogger(__name__)
SERVICE = auditor_pb2.DESCRIPTOR.services_by_name["Auditor"].full_name
LIVENESS = "liveness"
MAX_REQUEST_BYTES = 2 * MAX_IMAGE_BYTES + (1 << 20)
CLOSE_GRACE_S = 1.0
BEGIN_ANEW = "delete the file (in a cluster the ConfigMap POOL-audits) to begin without corrections"


async def serve(settings: AuditorSettings, part: AuditsPart, profile: LevelProfile) -> None:
    """Serve until told to stop. The health service says NOT_SERVING until the judge is there.

    Raises:
        AuditorUnusable: the profile's losses are of another judge.
    """
    stop = stop_on_signals()
    registry = open_registry()
    metrics = AuditorMetrics(registry, profile.base_steps)
    if settings.tls_dir is None:
        log.warning("INSECURE: no --tls-dir: whoever reaches this auditor may call it, and prompts arrive in clear")
    port = open_guarded_port(
        settings.tls_dir, settings.gateway_name, Shown(metrics.count_reload, metrics.certificate_end.set)
    )
    judge = PairJudge(part.judge, settings.models_dir, settings.device, profile=profile, metrics=metrics)
    book = _open_book(settings, part, profile, metrics)
    server = grpc.aio.server(options=server_options(MAX_REQUEST_BYTES), interceptors=port.interceptors)
    control = grpc.aio.server(options=server_options())
    health = ServerHealth(SERVICE)
    await health.show(False)
    await health.show_alive(LIVENESS)
    health.add_to(server, control)
    auditor_pb2_grpc.add_AuditorServicer_to_server(AuditorService(judge, book, metrics), server)
    auditor_pb2_grpc.add_AuditControlServicer_to_server(AuditControlService(judge, book), control)
    enable_reflection(server, (SERVICE, HEALTH_SERVICE))
    following = asyncio.create_task(port.run())
    try:
        number = port.bind(server, settings.listen)
        await server.start()
        control_address = await _start_control(control, settings.control_listen)
        metrics_port = serve_metrics(settings.metrics_listen, registry)
        if not await _unless_stopped(judge, book, stop):
            return
        await health.show(True)
        address = bound_address(settings.listen, number)
        metrics_address = bound_address(settings.metrics_listen, metrics_port)
        announce(settings.announce, address, metrics_address, control_address=control_address)
        log.info("the auditor judges by %s on port %d", judge.name, number)
        await stop.wait()
    finally:
        await asyncio.gather(server.stop(CLOSE_GRACE_S), control.stop(CLOSE_GRACE_S))
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following
        await judge.close()


async def _start_control(control: grpc.aio.Server, listen: str) -> str:
    """Health without TLS for the kubelet, AuditControl for the operator; returns its address."""
    if not listen:
        return ""
    port = bind_server(control, listen)
    await control.start()
    return bound_address(listen, port)


async def _unless_stopped(judge: PairJudge, book: AuditBook, stop: asyncio.Event) -> bool:
    """Whether the judge is there; False: told to stop before. A download or a load goes on in its thread until the
    process ends."""
    opening, stopping = asyncio.create_task(judge.open()), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((opening, stopping), return_when=asyncio.FIRST_COMPLETED)
        if not opening.done():
            return False
        opening.result()
        book.judged_by(judge.name)
        return True
    finally:
        opening.cancel()
        stopping.cancel()


def _open_book(
    settings: AuditorSettings, part: AuditsPart, profile: LevelProfile, metrics: AuditorMetrics
) -> AuditBook:
    if not part.recalibrate:
        return AuditBook(profile, metrics, recalibrates=False)
    corrections, save = NO_CORRECTIONS, None
    if settings.corrections is not None:
        corrections = read_corrections(settings.corrections, profile)
        save = partial(write_corrections, settings.corrections) if settings.save_corrections else None
    return AuditBook(profile, metrics, recalibrates=True, corrections=corrections, save=save)


def read_corrections(path: Path, profile: LevelProfile) -> Corrections:
    """Those of the file; none where there is no file, or where the profile was measured anew since.

    Raises:
        AuditorUnusable: the file cannot be read or used.
    """
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        return NO_CORRECTIONS
    except OSError as error:
        raise AuditorUnusable(f"--corrections {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise AuditorUnusable(f"--corrections {path}: is no UTF-8 text; {BEGIN_ANEW}") from error
    if not text.strip():
        return NO_CORRECTIONS
    try:
        found = parse_corrections(text)
    except CorrectionsInvalid as error:
        raise AuditorUnusable(f"--corrections {path}: {error}; {BEGIN_ANEW}") from error
    if found.profile != profile.losses_digest:
        log.warning("--corrections: these are of another profile, so they are left out")
        return NO_CORRECTIONS
    return found


def write_corrections(path: Path, corrections: Corrections) -> None:
    """In one rename. A disk that is full is told; what is in force stays in force."""
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(render_corrections(corrections))
        part.replace(path)
    except OSError as error:
        log.error("--corrections %s cannot be written: %s", path, error.strerror)  # noqa: TRY400 - it says all
