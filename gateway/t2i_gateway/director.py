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
from t2i_gateway.audits.sampling import AuditSamples
from t2i_gateway.context import Arrived, RequestContext, Waited, expected_quality_percent
from t2i_gateway.dispatch import Dispatcher, QueuePlace
from t2i_gateway.embeddings import Embeddings
from t2i_gateway.errors import GatewayDraining, GenerationFailed, RequestRefused, WorkersUnavailable
from t2i_gateway.events import Events, ToldEvent, is_of_image
from t2i_gateway.messages import (
    accepted_event,
    done_event,
    explain_response,
    file_notes,
    outlook_message,
    worker_request,
)
from t2i_gateway.metrics import GatewayMetrics, band_of
from t2i_gateway.neighbours import LatentPrefix, NeighbourIndex
from t2i_gateway.planning_loop import PlanningLoop
from t2i_gateway.request import ImageRequest, check_images
from t2i_gateway.safety import SafetyChecks
from t2i_gateway.several_images import behind_siblings, merge_events
from t2i_gateway.signing import ImageSigner
from t2i_gateway.spans import spanned_decision
from t2i_gateway.tenant_rates import TenantRates
from t2i_gateway.told_steps import ToldSteps
from t2i_gateway.workers.failures import RequestFailures
from t2i_gateway.workers.pool import WorkerPool
from t2i_policy.features import read_prompt
from t2i_policy.image_size import counted_steps
from t2i_policy.level import Level
from t2i_policy.pool_view import PoolView
from t2i_policy.request.admission import Admitted, Refused, decide_admission
from t2i_policy.request.decide import Arrival, Decided, Rules
from t2i_policy.request.explain import outlook
from t2i_policy.request.latent_holders import choose_with_holders, reachable_steps
from t2i_policy.request.options import NOWHERE, Neighbourhood
from t2i_policy.request.rate_limits import RateCost
from t2i_policy.request.served import estimate_s
from t2i_protos.v1 import gateway_pb2, worker_pb2
from t2i_runtime.level_messages import to_level

log = logging.getLogger(__name__)
MAX_RETRIES = 2
SLOS_WITHOUT_DEADLINE = 10  # a request without a deadline gets this many SLOs


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything that a director works with."""

    pool: str  # its name
    spec: PoolSpec
    embeddings: Embeddings
    neighbours: NeighbourIndex
    workers: WorkerPool
    dispatcher: Dispatcher
    planning: PlanningLoop
    safety: SafetyChecks
    signer: ImageSigner | None
    rates: TenantRates
    metrics: GatewayMetrics
    samples: AuditSamples

    @property
    def rules(self) -> Rules:
        """Those in force; corrections replace them."""
        return self.planning.rules


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
            arrived, cost = self._arrived(left_s), RateCost()
            self._check_rate(tenant, RateCost(request.num_images))  # 1. may the tenant have more, may it be drawn
            await self._check_prompt(request, tenant, arrived)
            before: list[Level] = []  # of this request's images
            streams: list[Events] = []
            for image in request.images:  # none is drawn unless all are admitted
                began_s = time.perf_counter()
                context = await self._look(image, tenant, arrived, before)  # 2. embed, find the nearest, choose a level
                self._parts.metrics.decide.observe(time.perf_counter() - began_s)
                cost = cost.plus(self._counted_steps(context))
                self._check_rate(tenant, cost)
                self._count(context)  # 3. count the demand
                admitted = self._admit(context, before)  # 4. accept or refuse
                self._parts.neighbours.note_asked(context.prefix, tenant)  # what is refused was not drawn
                before.append(context.decided.served.level)
                streams.append(self._answer(context, admitted))
            self._parts.rates.charge(tenant, cost)
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
        async with aclosing(self._draw(context)) as events:  # 5. place, send, relay; 6. check the image
            async for event in events:
                yield event

    async def explain(self, request: ImageRequest, tenant: str, left_s: float | None) -> gateway_pb2.ExplainResponse:
        """What `generate` would do now, without doing or counting it."""
        arrived = self._arrived(left_s)
        await self._check_prompt(request, tenant, arrived)
        context = await self._look(request, tenant, arrived)
        rules, dispatcher = self._parts.rules, self._parts.dispatcher
        view = dispatcher.view().for_cost(context.cost)
        levels = [
            outlook_message(entry, context, estimate_s(view, entry.level))
            for entry in outlook(rules.ladder, rules.profile, context.decided.near, request.limits)
        ]
        return explain_response(
            context,
            self._parts.rates.judge(tenant, RateCost().plus(self._counted_steps(context))) or self._admission(context),
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

    def _arrived(self, left_s: float | None) -> Arrived:
        if left_s is None:
            left_s = SLOS_WITHOUT_DEADLINE * self._parts.rules.slo_s
        now_s = self._loop.time()
        return Arrived(now_s, now_s + left_s)

    def _check_rate(self, tenant: str, cost: RateCost) -> None:
        """Before it counts as demand, so that no plan bends quality for what is not served."""
        if (refused := self._parts.rates.judge(tenant, cost)) is not None:
            self._parts.metrics.refusals.labels(refused.reason).inc()
            raise RequestRefused(refused)

    @staticmethod
    def _counted_steps(context: RequestContext) -> float:
        return counted_steps(context.decided.served.level.cost, context.cost)

    async def _check_prompt(self, request: ImageRequest, tenant: str, arrived: Arrived) -> None:
        await self._parts.safety.check_prompt(request, tenant, arrived.deadline_s - self._loop.time())

    @spanned_decision
    async def _look(
        self, request: ImageRequest, tenant: str, arrived: Arrived, before: Sequence[Level] = ()
    ) -> RequestContext:
        """Embed, find the nearest, decide; behind images of these levels that are not queued yet."""
        parts = self._parts
        check_images(request, parts.workers.description)
        embedding = await parts.embeddings.embed(request.prompt, tenant)
        prefix = parts.neighbours.prefix(request, tenant, parts.workers.description, embedding)
        neighbour = parts.neighbours.nearest(prefix, embedding)
        holdings = parts.neighbours.holdings(prefix, neighbour)
        if neighbour is not None and holdings is not None:  # what no ready worker has cannot be promised
            neighbour = replace(neighbour, steps=reachable_steps(holdings, parts.workers.views))
        near = self._neighbourhood(request, tenant, prefix, neighbour)
        step_cost = 1.0 if request.size == parts.spec.model.default_size else parts.workers.step_cost(request.size)
        cost = step_cost * request.drawing.images.steps_share
        arrival = Arrival(request.limits, near, arrived.deadline_s - self._loop.time(), random.random(), cost)
        decided = self._decide(arrival, tenant, before, holdings)
        return RequestContext(
            request=request,
            tenant=tenant,
            arrived_s=arrived.at_s,
            deadline_s=arrived.deadline_s,
            embedding=embedding,
            prefix=prefix,
            neighbour=neighbour,
            decided=decided,
            base_steps=parts.rules.ladder.base_steps,
            step_cost=step_cost,
            holdings=holdings,
            quality_percent=expected_quality_percent(decided, parts.rules.profile, request.limits.measured),
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
            words_agree=neighbours.words_agree(prefix, tenant, neighbour),
        )

    def _view(self, tenant: str, before: Sequence[Level], step_cost: float) -> PoolView:
        return behind_siblings(self._parts.dispatcher.view(tenant), before, step_cost)

    def _start(self, neighbour: Neighbour) -> Neighbourhood:
        """One final latent serves every K."""
        skips = frozenset(self._parts.rules.ladder.skips if neighbour.steps else ())
        return Neighbourhood(neighbour.similarity, skips)

    def _decide(self, arrival: Arrival, tenant: str, before: Sequence[Level], holdings: Holdings | None) -> Decided:
        """The level; where each worker has latents of its own, one that a worker can serve without waiting too long."""
        parts, view = self._parts, self._view(tenant, before, arrival.step_cost)
        plan = parts.planning.plan
        decided = parts.planning.policy.serve(parts.rules, plan, arrival, view)
        level = decided.served.level
        if holdings is None or not level.needs_latent:
            return decided
        alone = replace(arrival, near=replace(arrival.near, stored_steps=frozenset()))
        without = parts.planning.policy.serve(parts.rules, plan, alone, view)
        holders = frozenset[str]().union(*holdings.values())
        line = parts.dispatcher.holder_line(holders, self._queue_room(tenant))
        return choose_with_holders(decided, without, view.for_cost(arrival.step_cost), line, arrival.left_s)

    def _count(self, context: RequestContext) -> None:
        decided, metrics, rules = context.decided, self._parts.metrics, self._parts.rules
        self._parts.planning.count(decided.prompt_class, context.cost)
        metrics.wanted.labels(rules.label(decided.wanted.level)).inc()
        metrics.decisions.labels(decided.reason).inc()
        metrics.lookups.labels(band_of(decided.near.similarity)).inc()
        metrics.pressure.set(decided.pressed)

    def _admit(self, context: RequestContext, before: Sequence[Level]) -> Admitted:
        admission = self._admission(context, before)
        if isinstance(admission, Refused):
            raise self._parts.dispatcher.refused(admission, context.decided.served.level)
        return admission

    def _admission(self, context: RequestContext, before: Sequence[Level] = ()) -> Admitted | Refused:
        view = self._view(context.tenant, before, context.cost).for_cost(context.cost)
        left_s = context.deadline_s - self._loop.time()
        return decide_admission(view, context.decided.served, left_s, self._queue_room(context.tenant))

    def _queue_room(self, tenant: str) -> int:
        return self._parts.dispatcher.queue_room(tenant, self._parts.spec.gateway.max_queued_requests)

    async def _draw(self, context: RequestContext) -> Events:
        """Try a worker; try another one while no byte of the image has gone out."""
        metrics = self._parts.metrics
        excluded: frozenset[str] = frozenset()
        left: frozenset[str] = frozenset()
        told, holds = ToldSteps(), self._parts.safety.checks_images or self._parts.signer is not None
        watched = self._parts.samples.watch(context, self._parts.rules)
        failures = RequestFailures(hash((context.request.prompt, context.request.negative_prompt)))
        for retries in range(MAX_RETRIES + 1):
            attempt = await self._parts.dispatcher.attempt(self._place(context, excluded, left))
            connection, worker = attempt.connection, attempt.connection.name
            queued_s = self._loop.time() - context.arrived_s
            metrics.in_flight.inc()
            try:
                held: list[ToldEvent] = []  # the image, until it may be sent
                watched.begin()
                async with aclosing(self._send(context, attempt, worker)) as events:
                    async for event in events:
                        watched.take_in(event)
                        if holds and is_of_image(event):
                            held.append(event)
                        elif told.is_new(event):
                            yield event
                failures.drawn(connection.failures)
                if held:
                    attempt.end()  # the worker is done with it
                    for event in await self._finish_image(context, held):
                        yield event
                    await attempt.keep_latent()
                total_s = self._loop.time() - context.arrived_s
                yield self._done(context, attempt, Waited(queued_s, total_s, retries), worker)
                watched.sent(attempt.finished)
                return
            except WorkerLost as error:
                log.warning("worker %s lost a request (%s), try %d", worker, error.code.name, retries + 1)
                if not (error.gave_up or attempt.outdated):  # else its load or its connection is judged
                    failures.lost(connection.failures, error.code)
                if attempt.image_sent:
                    raise WorkersUnavailable("the worker was lost while it sent the image") from error
                if error.gave_up:  # it was slow, and may be the only one later
                    left |= {worker}
                elif not attempt.outdated:  # else its connection was lost, not the worker
                    excluded |= {worker}
                metrics.retries.inc()
            finally:
                metrics.in_flight.dec()
                attempt.end()
                self._learn_start(context, attempt, worker)
        raise WorkersUnavailable(f"the request failed on {MAX_RETRIES + 1} workers")

    async def _finish_image(self, context: RequestContext, image: Sequence[ToldEvent]) -> Sequence[ToldEvent]:
        left_s, signer = context.deadline_s - self._loop.time(), self._parts.signer
        await self._parts.safety.check_image(context.request, context.tenant, image, left_s)
        return image if signer is None else await signer.signed(context.request, image)

    def _place(
        self, context: RequestContext, excluded: frozenset[str] = frozenset(), left: frozenset[str] = frozenset()
    ) -> QueuePlace:
        level, holders = context.decided.served.level, None
        if context.holdings is not None and level.needs_latent:
            holders = partial(self._parts.neighbours.holders, context.prefix, context.neighbour)
        return QueuePlace(
            tenant=context.tenant,
            level=level,
            deadline_s=context.deadline_s,
            excluded=excluded,
            left=left,
            step_cost=context.step_cost,
            steps_share=context.request.drawing.images.steps_share,
            holders=holders,
        )

    def _send(self, context: RequestContext, attempt: Attempt, worker: str) -> Events:
        left_s = max(0.001, context.deadline_s - self._loop.time())
        reached = self._parts.neighbours.reaches(worker, context.prefix, context.neighbour)
        message = worker_request(context, self._parts.spec, left_s, reached)
        notes = file_notes(context.request, self._parts.pool, self._parts.spec)
        if notes is not None:
            message.file_notes.CopyFrom(notes)
        if self._parts.dispatcher.gateways > 1:
            self._parts.dispatcher.tell_others(message, self._parts.planning.rate_rps)
        return attempt.send(message, left_s)

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
        level = to_level(finished.served)
        metrics.served.labels(self._parts.rules.label(level)).inc()
        metrics.sizes.labels(self._parts.spec.model.size_label(context.request.size)).inc()
        metrics.steps_run.inc(level.cost)
        metrics.steps_skipped.inc(level.skipped_steps)
        metrics.queue.observe(waited.queued_s)
        metrics.denoise.observe(finished.denoise_ms / 1e3)
        metrics.encode.observe(finished.encode_ms / 1e3)
        metrics.duration.observe(waited.total_s)
        if level.needs_latent:
            metrics.hits.labels(band_of(context.decided.near.similarity)).inc()
