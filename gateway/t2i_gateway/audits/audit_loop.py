"""The audits of one gateway, one after the other, on idle workers of the pool's own model.

1. take the sample that waits for longest, and ask the auditor whether its judge scores such a prompt,
2. wait until no request waits for that model anywhere and a worker is idle,
3. draw the exact image there, as a background request: it makes way for whatever comes,
4. let the auditor judge both.

An audit is no tenant's request: it counts in no demand, rate or served image. What goes wrong is counted, and the audit
is given up. The exact run may leave its latent, as any exact run does: the next prompts like this one start from it.
"""

import asyncio
import logging
import random
from enum import StrEnum

import grpc

from t2i_gateway.audits.auditor_connection import AuditorConnection
from t2i_gateway.audits.sampling import AuditSample
from t2i_gateway.events import PassedChunk
from t2i_gateway.messages import audit_request, file_notes
from t2i_gateway.parts import Parts
from t2i_gateway.workers.connection import WorkerConnection
from t2i_policy.backoff import Backoff
from t2i_protos.v1 import auditor_pb2, worker_pb2
from t2i_runtime.level_messages import level_message, to_level

log = logging.getLogger(__name__)
ROOM_EVERY_S = 0.1
MAX_AGE_S = 600.0  # a pool that has no room for so long would only judge the past
SLOS_TO_DRAW = 10  # what the exact image may take, as of a request without a deadline
BACKOFF = Backoff(first_s=1.0, most_s=30.0)  # while the auditor does not answer: an exact image would be drawn in vain


class AuditOutcome(StrEnum):
    """How an audit ended, beside `displaced`."""

    JUDGED = "judged"
    EXPIRED = "expired"  # no worker was idle for too long
    NOT_DRAWN = "not_drawn"  # the worker refused, failed or was too busy
    NOT_JUDGED = "not_judged"  # the auditor was busy, failed or was away
    UNFIT = "unfit"  # the judge scores no images of such a prompt


class AuditLoop:
    """Used from one event loop."""

    def __init__(self, parts: Parts, auditor: AuditorConnection) -> None:
        self._parts = parts
        self._auditor = auditor
        self._clock = asyncio.get_running_loop().time
        self._draw_limit_s = SLOS_TO_DRAW * parts.spec.slo.latency_s
        self._pauses = BACKOFF.pauses()

    async def run(self) -> None:
        """Audit until cancelled."""
        while True:
            sample = await self._parts.samples.next()
            outcome = await self.audit(sample)
            self._parts.metrics.audits.labels(outcome).inc()
            if outcome is AuditOutcome.NOT_JUDGED:
                await asyncio.sleep(next(self._pauses))
            elif outcome in (AuditOutcome.JUDGED, AuditOutcome.UNFIT):
                self._pauses = BACKOFF.pauses()

    async def audit(self, sample: AuditSample) -> AuditOutcome:
        """One, from an idle worker to the auditor's answer."""
        prompt = sample.context.request.prompt
        try:
            if not await self._auditor.can_judge(prompt):
                return AuditOutcome.UNFIT
        except grpc.aio.AioRpcError as error:
            log.info("the auditor does not answer: %s", error.code().name)
            return AuditOutcome.NOT_JUDGED
        worker = await self._idle_worker(sample)
        if worker is None:
            return AuditOutcome.EXPIRED
        exact = await self._draw(sample, worker)
        if exact is None:
            return AuditOutcome.NOT_DRAWN
        promise = sample.promise
        request = auditor_pb2.JudgeRequest(
            prompt=prompt,
            image=await asyncio.to_thread(sample.image),
            exact=exact,
            level=level_message(promise.level),
            similarity=promise.similarity,
            promised_loss=promise.promised_loss,
            profile_loss=promise.profile_loss,
        )
        try:
            await self._auditor.judge(request)
        except grpc.aio.AioRpcError as error:
            log.info("the auditor judged no pair: %s", error.code().name)
            unfit = error.code() is grpc.StatusCode.INVALID_ARGUMENT
            return AuditOutcome.UNFIT if unfit else AuditOutcome.NOT_JUDGED
        return AuditOutcome.JUDGED

    async def _idle_worker(self, sample: AuditSample) -> WorkerConnection | None:
        """Wait for one; None: for too long."""
        while self._clock() - sample.taken_s <= MAX_AGE_S:
            idle = [one for one in self._parts.workers.connections if one.is_idle and not one.model]
            if idle and not self._any_queue:
                return random.choice(idle)
            await asyncio.sleep(ROOM_EVERY_S)
        return None

    @property
    def _any_queue(self) -> bool:
        view = self._parts.dispatchers.of_model("").view()
        return bool(view.queued or (view.others is not None and view.others.requests))

    async def _draw(self, sample: AuditSample, worker: WorkerConnection) -> bytes | None:
        """The exact image; None: it was not drawn."""
        context = sample.context
        reached = self._parts.neighbours.reaches(worker.name, context.prefix, context.neighbour)
        message = audit_request(context, self._parts.spec, self._draw_limit_s, reached)
        notes = file_notes(context.request, self._parts.pool, self._parts.spec)
        if notes is not None:
            message.file_notes.CopyFrom(notes)
        chunks: list[PassedChunk] = []
        finished: worker_pb2.Finished | None = None
        call = worker.generate(message, self._draw_limit_s)
        try:
            while isinstance(event := await call.read(), worker_pb2.WorkerEvent | PassedChunk):
                if isinstance(event, PassedChunk):
                    chunks.append(event)
                elif event.WhichOneof("event") == "finished":
                    finished = event.finished
        except grpc.aio.AioRpcError as error:
            log.info("worker %s drew no exact image for an audit: %s", worker.name, error.code().name)
            return None
        finally:
            call.cancel()
        if finished is None or to_level(finished.served) != self._parts.spec.ladder.exact:
            return None
        if finished.stored and context.prefix is not None and context.embedding is not None:
            stored = [(latent.step, latent.size_bytes) for latent in finished.stored]
            self._parts.neighbours.stored(context.prefix, context.embedding, stored, worker.name)
        return await asyncio.to_thread(_joined, chunks)


def _joined(chunks: list[PassedChunk]) -> bytes:
    return b"".join(chunk.data for chunk in chunks)
