"""The director: what happens to a prompt, top to bottom (`Director.generate`).

The decisions are the policy's; this module orders them and carries them out.
"""

import asyncio
import logging
import random
import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial

from t2i_api.pool import PoolSpec
from t2i_cache.catalogue import Neighbour
from t2i_cache.follow import Holdings
from t2i_gateway.attempt import Attempt, WorkerLost
from t2i_gateway.context import RequestContext, Waited
from t2i_gateway.dispatch import Dispatcher, QueuePlace
from t2i_gateway.embeddings import Embeddings
from t2i_gateway.errors import GatewayDraining, GenerationFailed, RequestRefused, WorkersUnavailable
from t2i_gateway.messages import Events, accepted_event, done_event, explain_response, outlook_message, worker_request
from t2i_gateway.metrics import GatewayMetrics, band_of
from t2i_gateway.neighbours import LatentPrefix, NeighbourIndex
from t2i_gateway.planning_loop import PlanningLoop
from t2i_gateway.request import ImageRequest
from t2i_gateway.several_images import behind_siblings, merge_events
from t2i_gateway.workers.failures import RequestFailures
from t2i_gateway.workers.pool import WorkerPool
from t2i_policy.features import read_prompt
from t2i_policy.level import Level
from t2i_policy.pool_view import PoolView
from t2i_policy.request.admission import Admitted, Refused, decide_admission
from t2i_policy.request.decide import Arrival, Decided, Rules
from t2i_policy.request.explain import outlook
from t2i_policy.request.latent_holders import choose_with_holders, reachable_steps
from t2i_policy.request.options import NOWHERE, Neighbourhood
from t2i_policy.request.served import estimate_s
from t2i_protos.v1 import gateway_pb2, worker_pb2

log = logging.getLogger(__name__)
MAX_RETRIES = 2
SLOS_WITHOUT_DEADLINE = 10  # a request without a deadline gets this many SLOs


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything that a director works with."""

    spec: PoolSpec
    rules: Rules
    embeddings: Embeddings
    neighbours: NeighbourIndex
    workers: WorkerPool
    dispatcher: Dispatcher
    planning: PlanningLoop
    metrics: GatewayMetrics


class Director:
    """Leads requests through one gateway. Used from one event loop."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._loop = asyncio.get_running_loop()
        self._active = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self.draining = False

    async def generate(self, request: ImageRequest, tenant: str, left_s: float | None) -> Events:
        """Accepted, (progress | preview)*, image, chunk+, done of each image. `left_s` None = no deadline is set.

        Raises:
            GatewayError: the request was refused, or it failed.
        """
        if self.draining:
            raise GatewayDraining("the gateway is shutting down; try another one")
        self._active += 1
        self._idle.clear()
        try:
            before: list[Level] = []  # of this request's images
            streams: list[Events] = []
            for image in request.images:  # none is drawn unless all are admitted
                began_s = time.perf_counter()
                context = await self._look(image, tenant, left_s, before)  # 1. embed, find the nearest, choose a level
                self._parts.metrics.decide.observe(time.perf_counter() - began_s)
                self._count(context.decided)  # 2. count the demand
                admitted = self._admit(context, before)  # 3. accept or refuse
                self._parts.neighbours.note_asked(context.prefix, tenant)  # what is refused was not drawn
                before.append(context.decided.served.level)
                streams.append(self._answer(context, admitted))
            async with aclosing(merge_events(streams)) as events:
                async for event in events:
                    yield event
        finally:
            self._active -= 1
            if not self._active:
                self._idle.set()

    async def _answer(self, context: RequestContext, admitted: Admitted) -> Events:
        """The events of one image."""
        yield accepted_event(context, admitted, self._parts.dispatcher.num_queued, tells_nearest=self._tells_nearest)
        async with aclosing(self._draw(context)) as events:  # 4. place, send, relay
            async for event in events:
                yield event

    async def explain(self, request: ImageRequest, tenant: str, left_s: float | None) -> gateway_pb2.ExplainResponse:
        """What `generate` would do now, without doing or counting it."""
        context = await self._look(request, tenant, left_s)
        rules, dispatcher = self._parts.rules, self._parts.dispatcher
        view = dispatcher.view()
        levels = [
            outlook_message(entry, estimate_s(view, entry.level))
            for entry in outlook(rules.ladder, rules.profile, context.decided.near, request.limits)
        ]
        return explain_response(
            context.decided,
            self._admission(context),
            dispatcher.placement(self._place(context)),
            levels=levels,
            tells_nearest=self._tells_nearest,
        )

    async def drain(self) -> None:
        """Take no more requests; return when those taken have ended."""
        self.draining = True
        await self._idle.wait()

    @property
    def _tells_nearest(self) -> bool:
        """False where the nearest cached prompt may be another tenant's."""
        return self._parts.spec.cache.scope != "Pool"

    async def _look(
        self, request: ImageRequest, tenant: str, left_s: float | None, before: Sequence[Level] = ()
    ) -> RequestContext:
        """Embed, find the nearest, decide; behind images of these levels that are not queued yet."""
        parts, arrived_s = self._parts, self._loop.time()
        if left_s is None:
            left_s = SLOS_WITHOUT_DEADLINE * parts.rules.slo_s
        embedding = await parts.embeddings.embed(request.prompt, tenant)
        prefix = parts.neighbours.prefix(request, tenant, parts.workers.description, embedding)
        neighbour = parts.neighbours.nearest(prefix, embedding)
        holdings = parts.neighbours.holdings(prefix, neighbour)
        if neighbour is not None and holdings is not None:  # what no ready worker has cannot be promised
            neighbour = replace(neighbour, steps=reachable_steps(holdings, parts.workers.views))
        near = self._neighbourhood(request, tenant, prefix, neighbour)
        deadline_s = arrived_s + left_s
        arrival = Arrival(request.limits, near, deadline_s - self._loop.time(), random.random())
        decided = self._decide(arrival, tenant, before, holdings)
        return RequestContext(
            request=request,
            tenant=tenant,
            arrived_s=arrived_s,
            deadline_s=deadline_s,
            embedding=embedding,
            prefix=prefix,
            neighbour=neighbour,
            decided=decided,
            base_steps=parts.rules.ladder.base_steps,
            holdings=holdings,
        )

    def _neighbourhood(
        self, request: ImageRequest, tenant: str, prefix: LatentPrefix | None, neighbour: Neighbour | None
    ) -> Neighbourhood:
        neighbours = self._parts.neighbours
        return replace(
            NOWHERE if neighbour is None else self._start(neighbour),
            prompt=read_prompt(request.prompt),
            same_image=neighbours.holds_same_image(prefix, tenant, neighbour),
            repeated=neighbours.repeats(prefix, tenant, neighbour),
        )

    def _view(self, tenant: str, before: Sequence[Level]) -> PoolView:
        return behind_siblings(self._parts.dispatcher.view(tenant), before)

    def _start(self, neighbour: Neighbour) -> Neighbourhood:
        """One final latent serves every K."""
        skips = frozenset(self._parts.rules.ladder.skips if neighbour.steps else ())
        return Neighbourhood(neighbour.similarity, skips)

    def _decide(self, arrival: Arrival, tenant: str, before: Sequence[Level], holdings: Holdings | None) -> Decided:
        """The level; where each worker has latents of its own, one that a worker can serve without waiting too long."""
        parts, view = self._parts, self._view(tenant, before)
        course = parts.planning.course
        decided = parts.planning.policy.serve(parts.rules, course, arrival, view)
        level = decided.served.level
        if holdings is None or not level.needs_latent:
            return decided
        alone = replace(arrival, near=replace(arrival.near, stored_steps=frozenset()))
        without = parts.planning.policy.serve(parts.rules, course, alone, view)
        holders = frozenset[str]().union(*holdings.values())
        line = parts.dispatcher.holder_line(holders, self._queue_room(tenant))
        return choose_with_holders(decided, without, view, line, arrival.left_s)

    def _count(self, decided: Decided) -> None:
        metrics, rules = self._parts.metrics, self._parts.rules
        self._parts.planning.count(decided.prompt_class)
        metrics.wanted.labels(rules.label(decided.wanted.level)).inc()
        metrics.decisions.labels(decided.reason).inc()
        metrics.lookups.labels(band_of(decided.near.similarity)).inc()
        metrics.pressure.set(decided.pressed)

    def _admit(self, context: RequestContext, before: Sequence[Level]) -> Admitted:
        admission = self._admission(context, before)
        if isinstance(admission, Refused):
            self._parts.metrics.refusals.labels(admission.reason).inc()
            raise RequestRefused(admission)
        return admission

    def _admission(self, context: RequestContext, before: Sequence[Level] = ()) -> Admitted | Refused:
        view = self._view(context.tenant, before)
        left_s = context.deadline_s - self._loop.time()
        return decide_admission(view, context.decided.served, left_s, self._queue_room(context.tenant))

    def _queue_room(self, tenant: str) -> int:
        return self._parts.dispatcher.queue_room(tenant, self._parts.spec.gateway.max_queued_requests)

    async def _draw(self, context: RequestContext) -> Events:
        """Try a worker; try another one while no byte of the image has gone out."""
        metrics = self._parts.metrics
        excluded: frozenset[str] = frozenset()
        failures = RequestFailures(hash((context.request.prompt, context.request.negative_prompt)))
        for retries in range(MAX_RETRIES + 1):
            attempt = await self._parts.dispatcher.attempt(self._place(context, excluded))
            connection, worker = attempt.connection, attempt.connection.name
            queued_s = self._loop.time() - context.arrived_s
            metrics.in_flight.inc()
            try:
                async with aclosing(self._send(context, attempt, worker)) as events:
                    async for event in events:
                        yield event
                failures.drawn(connection.failures)
                total_s = self._loop.time() - context.arrived_s
                yield self._done(context, attempt, Waited(queued_s, total_s, retries), worker)
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
                self._learn_start(context, attempt, worker)
        raise WorkersUnavailable(f"the request failed on {MAX_RETRIES + 1} workers")

    def _place(self, context: RequestContext, excluded: frozenset[str] = frozenset()) -> QueuePlace:
        level, holders = context.decided.served.level, None
        if context.holdings is not None and level.needs_latent:
            holders = partial(self._parts.neighbours.holders, context.prefix, context.neighbour)
        return QueuePlace(context.tenant, level, context.deadline_s, excluded, holders)

    def _send(self, context: RequestContext, attempt: Attempt, worker: str) -> Events:
        left_s = max(0.001, context.deadline_s - self._loop.time())
        reached = self._parts.neighbours.reaches(worker, context.prefix, context.neighbour)
        message = worker_request(context, self._parts.spec, left_s, reached)
        if self._parts.dispatcher.gateways > 1:
            self._parts.dispatcher.tell_others(message, self._parts.planning.rate_rps)
        return attempt.relay(attempt.connection.generate(message, left_s))

    def _learn_start(self, context: RequestContext, attempt: Attempt, worker: str) -> None:
        level, near, prefix = context.decided.served.level, context.neighbour, context.prefix
        if attempt.started is None or not level.needs_latent or near is None or prefix is None:
            return
        skipped = attempt.started.served.skipped_steps
        if skipped < level.skipped_steps:
            self._parts.metrics.latent_misses.labels(attempt.started.reason).inc()
        key = prefix.key(near.entry_id, context.base_steps)
        self._parts.neighbours.started(key, skipped > 0, attempt.started.reason, worker)

    def _done(
        self, context: RequestContext, attempt: Attempt, waited: Waited, worker: str
    ) -> gateway_pb2.GenerateEvent:
        """The last event; counts what was served and takes in what was stored."""
        finished, started = attempt.finished, attempt.started
        if finished is None or started is None:
            raise GenerationFailed("the worker ended without a result")
        if finished.stored and context.prefix is not None and context.embedding is not None:
            stored = [(latent.step, latent.size_bytes) for latent in finished.stored]
            self._parts.neighbours.stored(context.prefix, context.embedding, stored, worker)
        self._count_served(context, finished, waited)
        return done_event(context, started, finished, waited)

    def _count_served(self, context: RequestContext, finished: worker_pb2.Finished, waited: Waited) -> None:
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
            metrics.hits.labels(band_of(context.decided.near.similarity)).inc()
