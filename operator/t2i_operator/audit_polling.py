"""Polling auditors: what the auditor of each pool says, asked with a deadline.

A pool is looked at when that means something else than before: another verdict on the promise, a trouble, corrections.
Counts grow all the time, and a status is written for each look. So counts that merely grew are told once in EVERY_S.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import grpc

from t2i_operator.control_channels import ControlChannels, control_address, is_running
from t2i_operator.decide.types import NOTHING_HEARD, AuditedLevel, AuditReport, HeardAudits
from t2i_operator.manifests.child import CONFIG_HASH, Manifest
from t2i_operator.metrics import OperatorMetrics
from t2i_policy.corrections import Correction, Corrections
from t2i_policy.kept_promise import AuditedQuality, judge_promise
from t2i_policy.level import Level
from t2i_protos.v1 import auditor_pb2, auditor_pb2_grpc
from t2i_runtime.level_messages import to_level

log = logging.getLogger(__name__)
POLL_LIMIT_S = 1.0
POLLS_AT_ONCE = 64
EVERY_S = 60.0
SILENT_S = 60.0


@dataclass(slots=True)
class AuditedPool:
    """One pool that audits. `told` is what decisions are made from, since `told_s`."""

    pods: tuple[Manifest, ...]
    heard_s: float
    told: HeardAudits = NOTHING_HEARD
    told_s: float = 0.0


class AuditPoller:
    """Close it. `ask` is called with the key of a pool to look at; `clock` gives seconds."""

    def __init__(
        self, ask: Callable[[str], None], metrics: OperatorMetrics, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ask = ask
        self._metrics = metrics
        self._clock = clock
        self._channels = ControlChannels()
        self._pools: dict[str, AuditedPool] = {}

    def heard(self, key: str) -> HeardAudits:
        """What the auditor of a pool said, as far as it is told."""
        pool = self._pools.get(key)
        return NOTHING_HEARD if pool is None else pool.told

    def remember(self, key: str, pods: Sequence[Manifest]) -> None:
        """This pool audits, and these are its auditor's pods."""
        known = self._pools.setdefault(key, AuditedPool((), self._clock()))
        known.pods = tuple(pods)

    def forget(self, key: str) -> None:
        """The pool is gone, or audits no more."""
        self._pools.pop(key, None)

    async def poll_all(self) -> None:
        """Ask every auditor once."""
        slots = asyncio.Semaphore(POLLS_AT_ONCE)

        async def poll(key: str, pods: tuple[Manifest, ...]) -> None:
            async with slots:
                self._take_in(key, await self._poll(pods))

        pools = {key: pool.pods for key, pool in self._pools.items()}
        await asyncio.gather(*(poll(key, pods) for key, pods in pools.items()))
        await self._channels.keep(pod for pods in pools.values() for pod in pods)

    def _take_in(self, key: str, report: AuditReport | None) -> None:
        pool, now_s = self._pools.get(key), self._clock()
        if pool is None:
            return  # gone meanwhile
        if report is not None or not any(map(is_running, pool.pods)):
            pool.heard_s = now_s  # nobody is silent where nobody is
        found = HeardAudits(report or pool.told.report, now_s - pool.heard_s > SILENT_S)
        aged = now_s - pool.told_s >= EVERY_S
        if _meaning(found) != _meaning(pool.told) or (found != pool.told and aged):
            pool.told, pool.told_s = found, now_s
            self._ask(key)

    async def _poll(self, pods: Sequence[Manifest]) -> AuditReport | None:
        """Of the first pod that answers."""
        for pod in pods:
            address = control_address(pod)
            if address is not None and is_running(pod):
                report = await self._ask_one(address, _basis(pod))
                if report is not None:
                    return report
        return None

    async def _ask_one(self, address: str, basis: str) -> AuditReport | None:
        stub = auditor_pb2_grpc.AuditControlStub(self._channels.to(address))
        try:
            answer = await stub.GetAudits(auditor_pb2.GetAuditsRequest(), timeout=POLL_LIMIT_S)
        except grpc.aio.AioRpcError as error:
            self._metrics.audit_polls.labels(error.code().name).inc()
            return None
        try:
            report = to_audit_report(answer, basis)
        except ValueError as error:
            log.warning("the auditor at %s says what cannot be read: %s", address, error)
            self._metrics.audit_polls.labels("UNREADABLE").inc()
            return None
        self._metrics.audit_polls.labels("OK").inc()
        return report

    async def close(self) -> None:
        """Close every channel."""
        await self._channels.close()


def _meaning(heard: HeardAudits) -> object:
    """What people or plans should know of at once."""
    report = heard.report
    if report is None:
        return heard.silent
    verdict = judge_promise(report.quality)
    return heard.silent, report.basis, report.trouble, verdict.reason, report.corrections.revision


def _basis(pod: Manifest) -> str:
    return str((pod["metadata"].get("annotations") or {}).get(CONFIG_HASH, ""))


def to_audit_report(answer: auditor_pb2.GetAuditsResponse, basis: str) -> AuditReport:
    """From the wire. Bands of a level become one, weighted by their audits.

    Raises:
        ValueError: it names what is no level.
    """
    return AuditReport(
        quality=AuditedQuality(
            answer.num_audits, answer.promised_quality, answer.measured_quality, answer.standard_error
        ),
        levels=_levels(answer.bands),
        corrections=Corrections(
            answer.corrections.revision,
            tuple(
                Correction(to_level(one.level), one.similarity_min, one.added_loss)
                for one in answer.corrections.corrections
            ),
            answer.corrections.profile,
            answer.judge,
            answer.correction_reason,
        ),
        judge=answer.judge,
        trouble=answer.trouble,
        basis=basis,
    )


def _levels(bands: Sequence[auditor_pb2.AuditedBand]) -> tuple[AuditedLevel, ...]:
    by_level: dict[Level, list[auditor_pb2.AuditedBand]] = {}
    for band in bands:
        if band.num_audits:
            by_level.setdefault(to_level(band.level), []).append(band)
    return tuple(_together(level, found) for level, found in sorted(by_level.items()))


def _together(level: Level, bands: Sequence[auditor_pb2.AuditedBand]) -> AuditedLevel:
    count = sum(band.num_audits for band in bands)
    promised = sum(band.num_audits * band.promised_loss for band in bands) / count
    measured = sum(band.num_audits * band.measured_loss for band in bands) / count
    return AuditedLevel(level, count, promised, measured)
