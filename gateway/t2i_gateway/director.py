"""The director: what happens to a prompt, top to bottom.

deadline -> embed -> nearest cached -> wanted level -> count demand -> served level -> admit -> place -> send -> relay

The decisions are the policy's; this module orders them and carries them out.
"""

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial

from t2i_api.pool import PoolSpec
from t2i_cache.follow import Holdings
from t2i_gateway.attempt import Attempt, WorkerLost
from t2i_gateway.context import RequestContext, Waited, done_of, order_of
from t2i_gateway.dispatch import Dispatcher, QueuePlace
from t2i_gateway.embeddings import Embeddings
from t2i_gateway.errors import GatewayDraining, GenerationFailed, RequestRefused, WorkersUnavailable
from t2i_gateway.messages import to_decision_message, to_level_message
from t2i_gateway.metrics import GatewayMetrics, band_of
from t2i_gateway.neighbours import NeighbourIndex
from t2i_gateway.planning_loop import PlanningLoop
from t2i_gateway.request import ImageRequest
from t2i_gateway.workers.failures import RequestFailures
from t2i_gateway.workers.pool import WorkerPool
from t2i_policy.features import read_prompt
from t2i_policy.level import Level
from t2i_policy.request.admission import Admitted, Refused, decide_admission
from t2i_policy.request.decide import Arrival, Decided, Rules
from t2i_policy.request.explain import LevelOutlook, outlook
from t2i_policy.request.latent_holders import choose_with_holders, reachable_steps
from t2i_policy.request.options import NOWHERE, Neighbourhood
from t2i_policy.request.served import estimate_s
from t2i_protos.v1 import gateway_pb2, worker_pb2

log = logging.getLogger(__name__)
MAX_RETRIES = 2
SLOS_WITHOUT_DEADLINE = 10  # a request without a deadline gets this many SLOs


@dataclass(frozen=True, slots=True)
class Parts:
    """What a director works with."""

    spec: PoolSpec
    rules: Rules
    embeddings: Embeddings
    similar: NeighbourIndex
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
        self, asked: ImageRequest, tenant: str, left_s: float | None
    ) -> AsyncIterator[gateway_pb2.GenerateEvent]:
        """Accepted, (progress | preview)*, image, chunk+, done. `left_s` None = the client set no deadline.

        Raises:
            GatewayError: see `errors`.
        """
        if self.draining:
            raise GatewayDraining("the gateway is shutting down; try another one")
        self._enter()
        try:
            case = await self._look(asked, tenant, left_s)
            admitted = self._admit(case)
            self._parts.similar.note_asked(case.shelf, tenant)  # what is refused was not drawn
            yield self._accepted(case, admitted)
            async for event in self._run(case):
                yield event
        finally:
            self._leave()

    async def explain(self, asked: ImageRequest, tenant: str, left_s: float | None) -> gateway_pb2.ExplainResponse:
        """What `generate` would do now, without doing or counting it."""
        case = await self._look(asked, tenant, left_s, counted=False)
        parts, decided, tells = self._parts, case.decided, self._tells_nearest
        admission = self._admission(case)
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
        placement = parts.dispatcher.placement(self._place(case))
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

    async def _look(
        self, asked: ImageRequest, tenant: str, left_s: float | None, counted: bool = True
    ) -> RequestContext:
        """Embed, find the nearest, decide."""
        parts = self._parts
        arrived_s = self._loop.time()
        if left_s is None:
            left_s = SLOS_WITHOUT_DEADLINE * parts.rules.slo_s
        began = time.perf_counter()
        embedding = await parts.embeddings.embed(asked.prompt, tenant)
        shelf = parts.similar.shelf(asked, tenant, parts.workers.description, embedding)
        neighbour = parts.similar.nearest(shelf, embedding)
        holdings = parts.similar.holdings(shelf, neighbour)
        if neighbour is not None and holdings is not None:  # what no ready worker has cannot be promised
            neighbour = replace(neighbour, steps=reachable_steps(holdings, parts.workers.views))
        waited_s = self._loop.time() - arrived_s
        found = NOWHERE if neighbour is None else Neighbourhood(neighbour.similarity, neighbour.steps)
        near = replace(
            found,
            prompt=read_prompt(asked.prompt),
            same_image=parts.similar.holds_same_image(shelf, tenant, neighbour),
            repeated=parts.similar.repeats(shelf, tenant, neighbour),
        )
        arrival = Arrival(asked.limits, near, left_s - waited_s, random.random())
        decided = self._decide(arrival, tenant, holdings)
        if counted:
            parts.metrics.decide.observe(time.perf_counter() - began)
            self._count(decided)
        deadline_s, base_steps = arrived_s + left_s, parts.rules.ladder.base_steps
        return RequestContext(
            asked, tenant, arrived_s, deadline_s, embedding, shelf, neighbour, decided, base_steps, holdings
        )

    def _decide(self, arrival: Arrival, tenant: str, holdings: Holdings | None) -> Decided:
        """The level; where each worker has latents of its own, one that a worker can serve without waiting too long."""
        parts, view = self._parts, self._parts.dispatcher.view(tenant)
        decided = parts.planning.policy.serve(parts.rules, parts.planning.course, arrival, view)
        level = decided.served.level
        if holdings is None or not level.needs_latent:
            return decided
        alone = replace(arrival, near=replace(arrival.near, stored_steps=frozenset()))
        without = parts.planning.policy.serve(parts.rules, parts.planning.course, alone, view)
        holders = holdings.get(level.skipped_steps, frozenset())
        line = parts.dispatcher.holder_line(holders, self._queue_room(tenant))
        return choose_with_holders(decided, without, view, line, arrival.left_s)

    def _place(self, case: RequestContext, excluded: frozenset[str] = frozenset()) -> QueuePlace:
        level, holders = case.decided.served.level, None
        if case.holdings is not None and level.needs_latent:
            holders = partial(self._parts.similar.holders, case.shelf, case.neighbour, level.skipped_steps)
        return QueuePlace(case.tenant, level, case.deadline_s, excluded, holders)

    def _count(self, decided: Decided) -> None:
        metrics, rules = self._parts.metrics, self._parts.rules
        self._parts.planning.count(decided.prompt_class)
        metrics.wanted.labels(rules.label(decided.wanted.level)).inc()
        metrics.decisions.labels(decided.reason).inc()
        metrics.lookups.labels(band_of(decided.near.similarity)).inc()
        metrics.pressure.set(decided.pressed)

    def _admit(self, case: RequestContext) -> Admitted:
        admission = self._admission(case)
        if isinstance(admission, Refused):
            self._parts.metrics.refusals.labels(admission.reason).inc()
            raise RequestRefused(admission)
        return admission

    def _admission(self, case: RequestContext) -> Admitted | Refused:
        dispatcher, served = self._parts.dispatcher, case.decided.served
        left_s = case.deadline_s - self._loop.time()
        return decide_admission(dispatcher.view(case.tenant), served, left_s, self._queue_room(case.tenant))

    def _queue_room(self, tenant: str) -> int:
        return self._parts.dispatcher.queue_room(tenant, self._parts.spec.gateway.max_queued_requests)

    def _accepted(self, case: RequestContext, admitted: Admitted) -> gateway_pb2.GenerateEvent:
        accepted = gateway_pb2.Accepted(
            request_id=case.asked.request_id,
            decision=to_decision_message(case.decided, self._tells_nearest),
            queued_ahead=self._parts.dispatcher.num_queued,
            estimated_ms=1e3 * admitted.estimated_s,
        )
        return gateway_pb2.GenerateEvent(accepted=accepted)

    async def _run(self, case: RequestContext) -> AsyncIterator[gateway_pb2.GenerateEvent]:
        """Place, send, relay; again on another worker while no image byte has gone out."""
        metrics = self._parts.metrics
        excluded: frozenset[str] = frozenset()
        failures = RequestFailures(hash((case.asked.prompt, case.asked.negative_prompt)))
        for retries in range(MAX_RETRIES + 1):
            attempt = await self._parts.dispatcher.attempt(self._place(case, excluded))
            connection, worker = attempt.connection, attempt.connection.name
            queued_s = self._loop.time() - case.arrived_s
            metrics.in_flight.inc()
            try:
                left_s = self._left_s(case)
                steps = self._parts.similar.steps_at(worker, case.shelf, case.neighbour)
                call = connection.generate(order_of(case, self._parts.spec, left_s, steps), left_s)
                async with aclosing(attempt.relay(call)) as events:
                    async for event in events:
                        yield event
                failures.drawn(connection.failures)
                yield self._done(case, attempt, Waited(queued_s, self._loop.time() - case.arrived_s, retries), worker)
                return
            except WorkerLost as error:
                log.warning("worker %s lost a request (%s), try %d", worker, error.code.name, retries + 1)
                if not (error.gave_up or attempt.outdated):  # else its load or its connection is judged
                    failures.lost(connection.failures, error.code)
                if attempt.image_sent:
                    raise WorkersUnavailable("the worker was lost while it sent the image") from error
                if not attempt.outdated:  # else its connection was lost, not the worker
                    excluded |= {worker}
                metrics.retries.inc()
            finally:
                metrics.in_flight.dec()
                attempt.end()
                self._learn_start(case, attempt, worker)
        raise WorkersUnavailable(f"the request failed on {MAX_RETRIES + 1} workers")

    def _left_s(self, case: RequestContext) -> float:
        return max(0.001, case.deadline_s - self._loop.time())

    def _learn_start(self, case: RequestContext, attempt: Attempt, worker: str) -> None:
        level, near, shelf = case.decided.served.level, case.neighbour, case.shelf
        if attempt.started is None or not level.needs_latent or near is None or shelf is None:
            return
        skipped = attempt.started.served.skipped_steps
        if skipped < level.skipped_steps:
            self._parts.metrics.latent_misses.labels(attempt.started.reason).inc()
        key = shelf.key(near.entry_id, level.skipped_steps)
        self._parts.similar.started(key, skipped, attempt.started.reason, worker)

    def _done(self, case: RequestContext, attempt: Attempt, waited: Waited, worker: str) -> gateway_pb2.GenerateEvent:
        """The last event; counts what was served and takes in what was stored."""
        finished, started = attempt.finished, attempt.started
        if finished is None or started is None:
            raise GenerationFailed("the worker ended without a result")
        if finished.stored and case.shelf is not None and case.embedding is not None:
            stored = [(latent.step, latent.size_bytes) for latent in finished.stored]
            self._parts.similar.stored(case.shelf, case.embedding, stored, worker)
        self._count_served(case, finished, waited)
        return gateway_pb2.GenerateEvent(done=done_of(case, started, finished, waited))

    def _count_served(self, case: RequestContext, finished: worker_pb2.Finished, waited: Waited) -> None:
        metrics = self._parts.metrics
        level = Level(finished.served.skipped_steps, finished.served.num_inference_steps)
        metrics.served.labels(self._parts.rules.label(level)).inc()
        metrics.steps_run.inc(level.steps_run)
        metrics.steps_skipped.inc(level.skipped_steps)
        metrics.queue.observe(waited.queued_s)
        metrics.denoise.observe(finished.denoise_ms / 1e3)
        metrics.encode.observe(finished.encode_ms / 1e3)
        metrics.duration.observe(waited.total_s)
        if level.needs_latent:
            metrics.hits.labels(band_of(case.decided.near.similarity)).inc()

    def _outlook_message(self, entry: LevelOutlook) -> gateway_pb2.LevelOutlook:
        return gateway_pb2.LevelOutlook(
            level=to_level_message(entry.level),
            expected_quality_percent=0.0 if entry.expected_loss is None else 100 * (1 - entry.expected_loss),
            estimated_ms=1e3 * estimate_s(self._parts.dispatcher.view(), entry.level),
            eligible=entry.eligible,
            reason=entry.reason,
            explanation=entry.explanation,
        )
