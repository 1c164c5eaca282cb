"""The auditor's two gRPC services: pairs in and corrections out for gateways, figures for the operator."""

import logging
from collections.abc import AsyncIterator, Iterator
from math import isfinite
from typing import Any

import grpc
from google.rpc import code_pb2

from t2i_auditor.book import AuditBook
from t2i_auditor.errors import AuditorBusy, AuditorError, NotJudged, PairInvalid
from t2i_auditor.judging import PairJudge
from t2i_auditor.metrics import AuditorMetrics
from t2i_policy.audits import Audit, band_of
from t2i_policy.corrections import Corrections
from t2i_policy.level import Level
from t2i_protos.v1 import auditor_pb2, auditor_pb2_grpc
from t2i_runtime.errors import Violation
from t2i_runtime.level_messages import level_message, to_level
from t2i_runtime.status import bad_request, to_grpc_status

log = logging.getLogger(__name__)
CORRECTIONS_EVERY_S = 5.0
MAX_IMAGE_BYTES = 24 << 20
Context = grpc.aio.ServicerContext[Any, Any]


class AuditorService(auditor_pb2_grpc.AuditorServicer):
    """auditor.proto describes the methods."""

    def __init__(self, judge: PairJudge, book: AuditBook, metrics: AuditorMetrics) -> None:
        self._judge = judge
        self._book = book
        self._metrics = metrics

    async def Judge(self, request: auditor_pb2.JudgeRequest, context: Context) -> auditor_pb2.JudgeResponse:
        outcome = "CANCELLED"
        try:
            level = _checked(request)
            found = await self._judge.score(request.prompt, request.image, request.exact)
            similarity = request.similarity if request.HasField("similarity") else None
            self._book.take_in(
                Audit(
                    band_of(self._book.profile, level, similarity),
                    quality=found.image,
                    exact_quality=found.exact,
                    promised_loss=request.promised_loss,
                    profile_loss=request.profile_loss,
                )
            )
            outcome = "OK"
            return auditor_pb2.JudgeResponse(quality=found.image, exact_quality=found.exact)
        except AuditorError as error:
            status = _to_status(error)
            outcome = status.code.name
            await context.abort_with_status(status)
            raise  # abort has raised
        finally:
            self._metrics.pairs.labels(outcome).inc()

    async def CanJudge(self, request: auditor_pb2.CanJudgeRequest, context: Context) -> auditor_pb2.CanJudgeResponse:
        del context
        return auditor_pb2.CanJudgeResponse(can=self._judge.can_score(request.prompt))

    async def WatchCorrections(
        self, request: auditor_pb2.WatchCorrectionsRequest, context: Context
    ) -> AsyncIterator[auditor_pb2.Corrections]:
        del request, context
        while True:
            told = self._book.corrections
            yield corrections_message(told)
            if told is self._book.corrections:  # or they changed while this was sent
                await self._book.changed(CORRECTIONS_EVERY_S)


class AuditControlService(auditor_pb2_grpc.AuditControlServicer):
    """What the operator asks. Reading only."""

    def __init__(self, judge: PairJudge, book: AuditBook) -> None:
        self._judge = judge
        self._book = book

    async def GetAudits(self, request: auditor_pb2.GetAuditsRequest, context: Context) -> auditor_pb2.GetAuditsResponse:
        del request, context
        book = self._book
        quality = book.whole.quality
        response = auditor_pb2.GetAuditsResponse(
            num_audits=quality.num_audits,
            promised_quality=quality.promised,
            measured_quality=quality.measured,
            standard_error=quality.standard_error,
            judge=self._judge.name,
            trouble=self._judge.trouble,
            corrections=corrections_message(book.corrections),
            correction_reason=book.corrections.reason,
            total_audits=book.total,
        )
        for (level, similarity_min), band in book.bands.items():
            response.bands.add(
                level=level_message(level),
                similarity_min=similarity_min,
                num_audits=band.num_audits,
                promised_loss=band.promised_loss,
                measured_loss=band.measured_loss,
                standard_error=band.standard_error,
                added_loss=book.corrections.of(level, similarity_min),
            )
        return response


def corrections_message(corrections: Corrections) -> auditor_pb2.Corrections:
    message = auditor_pb2.Corrections(
        revision=corrections.revision,
        profile=corrections.profile,
        next_within_ms=round(1e3 * CORRECTIONS_EVERY_S),
    )
    for one in corrections.corrections:
        message.corrections.add(
            level=level_message(one.level), similarity_min=one.similarity_min, added_loss=one.added_loss
        )
    return message


def _checked(request: auditor_pb2.JudgeRequest) -> Level:
    """The level, when every field can be used.

    Raises:
        PairInvalid: names those that cannot.
    """
    violations = [*_violations(request)]
    if violations:
        raise PairInvalid(violations)
    try:
        return to_level(request.level)
    except ValueError as error:
        raise PairInvalid([Violation("level", str(error))]) from error


def _violations(request: auditor_pb2.JudgeRequest) -> Iterator[Violation]:
    for name in ("image", "exact"):
        if not 0 < len(getattr(request, name)) <= MAX_IMAGE_BYTES:
            yield Violation(name, f"must be an encoded image of at most {MAX_IMAGE_BYTES >> 20} MiB")
    for name in ("promised_loss", "profile_loss"):
        value = getattr(request, name)
        if not (isfinite(value) and 0 <= value <= 1):
            yield Violation(name, "must be a fraction from 0 to 1")
    if request.HasField("similarity") and not -1 <= request.similarity <= 1.01:
        yield Violation("similarity", "must be a cosine")


def _to_status(error: AuditorError) -> grpc.Status:
    match error:
        case PairInvalid():
            return to_grpc_status(code_pb2.INVALID_ARGUMENT, str(error), bad_request(error.violations))
        case AuditorBusy():
            return to_grpc_status(code_pb2.RESOURCE_EXHAUSTED, str(error))
        case NotJudged():
            return to_grpc_status(code_pb2.UNAVAILABLE, str(error))
        case _:
            return to_grpc_status(code_pb2.INTERNAL, str(error))
