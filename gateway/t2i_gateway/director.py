"""The director: what happens to a prompt, top to bottom.

deadline -> embed -> nearest cached -> wanted level -> count demand -> served level -> admit -> place -> send -> relay

The decisions are the policy's; this module orders them and carries them out.
"""

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

from t2i_cache.catalogue import Neighbour
from t2i_gateway.asking import Asked
from t2i_gateway.decisions import to_decision_message, to_level_message
from t2i_gateway.dispatch import Dispatcher, Place
from t2i_gateway.embedding import Vector
from t2i_gateway.embeddings import Embeddings
from t2i_gateway.errors import GatewayDraining, GenerationFailed, RequestRefused, WorkersUnavailable
from t2i_gateway.metrics import GatewayMetrics, band_of
from t2i_gateway.planning import PlanningLoop
from t2i_gateway.relaying import Attempt, WorkerLost, relay
from t2i_gateway.similar import Shelf, SimilarPrompts
from t2i_gateway.workers import WorkerPool
from t2i_policy.admission import Admitted, Refused, decide_admission
from t2i_policy.deciding import Arrival, Decided, Rules
from t2i_policy.features import read_prompt
from t2i_policy.levels import Level
from t2i_policy.outlook import LevelOutlook, outlook
from t2i_policy.pool import PoolSpec
from t2i_policy.serving import estimate_s
from t2i_policy.wanted import NOWHERE, Neighbourhood
from t2i_protos.v1 import gateway_pb2, worker_pb2

log = logging.getLogger(__name__)
MAX_RETRIES = 2
SLOS_WITHOUT_DEADLINE = 10  # a request without a deadline gets this many SLOs


@dataclass(frozen=True, slots=True)
class Course:
    """A request that was looked at: what is known of it and what was decided. Seconds of the event loop's clock."""

    asked: Asked
    tenant: str
    arrived_s: float
    deadline_s: float
    embedding: Vector | None
    shelf: Shelf | None
    neighbour: Neighbour | None
    decided: Decided


@dataclass(frozen=True, slots=True)
class Parts:
    """What a director works with."""

    spec: PoolSpec
    rules: Rules
    embeddings: Embeddings
    similar: SimilarPrompts
    workers: WorkerPool
    dispatcher: Dispatcher
    planning: PlanningLoop
    metrics: GatewayMetrics


class Director:
    """See the module."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._loop = asyncio.get_running_loop()
        self._active = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self.draining = False

    async def generate(
        self, asked: Asked, tenant: str, left_s: float | None
    ) -> AsyncIterator[gateway_pb2.GenerateEvent]:
        """Accepted, (progress | preview)*, image, chunk+, done. `left_s` None = the client set no deadline.

        Raises:
            GatewayError: see `errors`.
        """
        if self.draining:
            raise GatewayDraining("the gateway is shutting down; try another one")
        self._enter()
        try:
            course = await self._look(asked, tenant, left_s)
            admitted = self._admit(course)
            yield self._accepted(course, admitted)
            async for event in self._run(course):
                yield event
        finally:
            self._leave()

    async def explain(self, asked: Asked, tenant: str, left_s: float | None) -> gateway_pb2.ExplainResponse:
        """What `generate` would do now, without doing or counting it."""
        course = await self._look(asked, tenant, left_s, counted=False)
        parts, decided, tells = self._parts, course.decided, self._tells_nearest
        left = course.deadline_s - self._loop.time()
        admission = self._admission(course)
        response = gateway_pb2.ExplainResponse(
            decision=to_decision_message(decided, tells),
            cached_steps=sorted(decided.near.stored_steps) if tells else (),
            refusal=f"{admission.reason}: {admission.message}" if isinstance(admission, Refused) else "",
        )
        if decided.near.similarity is not None and tells:
            response.similarity = decided.near.similarity
        rules = parts.rules
        for entry in outlook(rules.ladder, rules.profile, decided.near, asked.limits) if tells else ():
            response.levels.append(self._outlook_message(entry))
        placement = parts.dispatcher.placement(decided.served.level, left)
        if placement is not None:
            response.worker, response.placement_reason = placement.worker, placement.reason
        return response

    async def drain(self) -> None:
        """Take no more requests; return when those taken have ended."""
        self.draining = True
        await self._idle.wait()

    @property
    def _tells_nearest(self) -> bool:
        """False where the nearest cached prompt may be another tenant's."""
        return self._parts.spec.cache.scope != "Pool"

    def _enter(self) -> None:
        self._active += 1
        self._idle.clear()

    def _leave(self) -> None:
        self._active -= 1
        if not self._active:
            self._idle.set()

    async def _look(self, asked: Asked, tenant: str, left_s: float | None, counted: bool = True) -> Course:
        """Embed, find the nearest, decide."""
        parts = self._parts
        arrived_s = self._loop.time()
        if left_s is None:
            left_s = SLOS_WITHOUT_DEADLINE * parts.rules.slo_s
        began = time.perf_counter()
        embedding = await parts.embeddings.embed(asked.prompt, tenant)
        shelf = parts.similar.shelf(asked, tenant, parts.workers.description, parts.embeddings.digest)
        neighbour = parts.similar.nearest(shelf, embedding)
        waited_s = self._loop.time() - arrived_s
        found = NOWHERE if neighbour is None else Neighbourhood(neighbour.similarity, neighbour.steps)
        near = replace(found, prompt=read_prompt(asked.prompt))
        arrival = Arrival(asked.limits, near, left_s - waited_s, random.random())
        decided = parts.planning.policy.serve(
            parts.rules, parts.planning.course, arrival, parts.dispatcher.view(tenant)
        )
        if counted:
            parts.metrics.decide.observe(time.perf_counter() - began)
            self._count(decided)
        return Course(asked, tenant, arrived_s, arrived_s + left_s, embedding, shelf, neighbour, decided)

    def _count(self, decided: Decided) -> None:
        metrics, rules = self._parts.metrics, self._parts.rules
        self._parts.planning.count(decided.prompt_class)
        metrics.wanted.labels(rules.label(decided.wanted.level)).inc()
        metrics.decisions.labels(decided.reason).inc()
        metrics.lookups.labels(band_of(decided.near.similarity)).inc()
        metrics.pressure.set(decided.pressed)

    def _admit(self, course: Course) -> Admitted:
        admission = self._admission(course)
        if isinstance(admission, Refused):
            self._parts.metrics.refusals.labels(admission.reason).inc()
            raise RequestRefused(admission)
        return admission

    def _admission(self, course: Course) -> Admitted | Refused:
        dispatcher, served = self._parts.dispatcher, course.decided.served
        left_s = course.deadline_s - self._loop.time()
        max_queued = dispatcher.queue_room(course.tenant, self._parts.spec.gateway.max_queued_requests)
        return decide_admission(dispatcher.view(course.tenant), served, left_s, max_queued)

    def _accepted(self, course: Course, admitted: Admitted) -> gateway_pb2.GenerateEvent:
        accepted = gateway_pb2.Accepted(
            request_id=course.asked.request_id,
            decision=to_decision_message(course.decided, self._tells_nearest),
            queued_ahead=self._parts.dispatcher.num_queued,
            estimated_ms=1e3 * admitted.estimated_s,
        )
        return gateway_pb2.GenerateEvent(accepted=accepted)

    async def _run(self, course: Course) -> AsyncIterator[gateway_pb2.GenerateEvent]:
        """Place, send, relay; again on another worker while no image byte has gone out."""
        metrics = self._parts.metrics
        excluded: frozenset[str] = frozenset()
        for retries in range(MAX_RETRIES + 1):
            place = Place(course.tenant, course.decided.served.level, course.deadline_s, excluded)
            lease = await self._parts.dispatcher.lease(place)
            queued_s = self._loop.time() - course.arrived_s
            attempt = Attempt(previews=course.asked.preview_every_steps > 0)
            metrics.in_flight.inc()
            try:
                call = lease.link.generate(self._order(course), self._left_s(course))
                async for event in relay(call, lease, attempt):
                    yield event
                yield self._done(course, attempt, queued_s, retries)
                return
            except WorkerLost as error:
                log.warning("worker %s lost a request (%s), try %d", lease.link.name, error.code.name, retries + 1)
                if attempt.image_sent:
                    raise WorkersUnavailable("the worker was lost while it sent the image") from error
                excluded |= {lease.link.name}
                metrics.retries.inc()
            finally:
                metrics.in_flight.dec()
                lease.end()
                self._learn_start(course, attempt)
        raise WorkersUnavailable(f"the request failed on {MAX_RETRIES + 1} workers")

    def _left_s(self, course: Course) -> float:
        return max(0.001, course.deadline_s - self._loop.time())

    def _order(self, course: Course) -> worker_pb2.WorkerGenerateRequest:
        """What the worker is told."""
        asked, level, spec = course.asked, course.decided.served.level, self._parts.spec
        order = worker_pb2.WorkerGenerateRequest(
            request_id=asked.request_id,
            prompt=asked.prompt,
            negative_prompt=asked.negative_prompt,
            seed=asked.seed,
            width=spec.model.width,
            height=spec.model.height,
            guidance_scale=asked.guidance_scale,
            output_format=asked.output_format,
            level=to_level_message(level),
            budget_ms=max(1, int(1e3 * self._left_s(course))),
            preview_every_steps=asked.preview_every_steps,
        )
        if level.needs_latent and course.shelf is not None and course.neighbour is not None:
            order.source.scope, order.source.embedder = course.shelf.scope, course.shelf.embedder
            order.source.entry_id = course.neighbour.entry_id
            order.source.steps.extend(sorted(course.neighbour.steps))
        if self._is_worth_keeping(course) and course.shelf is not None and course.embedding is not None:
            order.sink.scope, order.sink.embedder = course.shelf.scope, course.shelf.embedder
            order.sink.entry_id = course.shelf.entry_id
            order.sink.steps.extend(self._parts.rules.ladder.steps_to_keep)
            order.sink.embedding = course.embedding.astype("<f4").tobytes()
        return order

    def _is_worth_keeping(self, course: Course) -> bool:
        """Only exact runs are kept, and only of prompts that are not there already."""
        ladder = self._parts.rules.ladder
        if course.decided.served.level != ladder.exact or not ladder.steps_to_keep:
            return False
        near, shelf = course.neighbour, course.shelf
        there = near is not None and shelf is not None and near.entry_id == shelf.entry_id
        return not (there and near is not None and near.steps.issuperset(ladder.steps_to_keep))

    def _learn_start(self, course: Course, attempt: Attempt) -> None:
        level, near, shelf = course.decided.served.level, course.neighbour, course.shelf
        if attempt.started is None or not level.needs_latent or near is None or shelf is None:
            return
        skipped = attempt.started.served.skipped_steps
        if skipped < level.skipped_steps:
            self._parts.metrics.latent_misses.labels(attempt.started.reason).inc()
        self._parts.similar.started(shelf.key(near.entry_id, level.skipped_steps), skipped, attempt.started.reason)

    def _done(self, course: Course, attempt: Attempt, queued_s: float, retries: int) -> gateway_pb2.GenerateEvent:
        """The last event; counts what was served and takes in what was stored."""
        finished, started = attempt.finished, attempt.started
        if finished is None or started is None:
            raise GenerationFailed("the worker ended without a result")
        if finished.stored and course.shelf is not None and course.embedding is not None:
            stored = [(latent.step, latent.size_bytes) for latent in finished.stored]
            self._parts.similar.stored(course.shelf, course.embedding, stored)
        total_s = self._loop.time() - course.arrived_s
        self._count_served(course, finished, queued_s, total_s)
        as_decided = started.reason == "AsRequested"
        timings = gateway_pb2.Timings(
            queue_ms=1e3 * queued_s,
            wait_ms=finished.wait_ms,
            denoise_ms=finished.denoise_ms,
            encode_ms=finished.encode_ms,
            total_ms=1e3 * total_s,
        )
        done = gateway_pb2.Done(
            served=finished.served,
            reason=course.decided.reason if as_decided else started.reason,
            seed=course.asked.seed,
            timings=timings,
            retries=retries,
        )
        return gateway_pb2.GenerateEvent(done=done)

    def _count_served(self, course: Course, finished: worker_pb2.Finished, queued_s: float, total_s: float) -> None:
        metrics = self._parts.metrics
        level = Level(finished.served.skipped_steps, finished.served.num_inference_steps)
        metrics.served.labels(self._parts.rules.label(level)).inc()
        metrics.steps_run.inc(level.steps_run)
        metrics.steps_skipped.inc(level.skipped_steps)
        metrics.queue.observe(queued_s)
        metrics.denoise.observe(finished.denoise_ms / 1e3)
        metrics.encode.observe(finished.encode_ms / 1e3)
        metrics.duration.observe(total_s)
        if level.needs_latent:
            metrics.hits.labels(band_of(course.decided.near.similarity)).inc()

    def _outlook_message(self, entry: LevelOutlook) -> gateway_pb2.LevelOutlook:
        return gateway_pb2.LevelOutlook(
            level=to_level_message(entry.level),
            expected_quality_percent=0.0 if entry.expected_loss is None else 100 * (1 - entry.expected_loss),
            estimated_ms=1e3 * estimate_s(self._parts.dispatcher.view(), entry.level),
            eligible=entry.eligible,
            reason=entry.reason,
            explanation=entry.explanation,
        )
