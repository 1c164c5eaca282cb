"""An admitted request on its way to its image: place, send, relay, check, tell what was served.

A worker that fails it is left for another, as long as no byte of its image has gone out. In a pool of several models it
may be decided anew among the other models. That is when no worker that is left holds the model it was meant for, or
would be in time.
"""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import aclosing
from functools import partial

from t2i_gateway.attempt import Attempt, WorkerLost
from t2i_gateway.context import RequestContext, Waited
from t2i_gateway.deciding import Deciding
from t2i_gateway.dispatch import ModelLate, QueuePlace
from t2i_gateway.errors import GenerationFailed, ModelGone, WorkersUnavailable
from t2i_gateway.events import Events, ToldEvent, is_of_image
from t2i_gateway.messages import done_event, file_notes, steps_run, worker_request
from t2i_gateway.metrics import band_of
from t2i_gateway.parts import Parts
from t2i_gateway.told_steps import ToldSteps
from t2i_gateway.workers.failures import RequestFailures
from t2i_protos.v1 import gateway_pb2, worker_pb2
from t2i_runtime.level_messages import to_level

log = logging.getLogger(__name__)
MAX_RETRIES = 2
MAX_MOVES = 3  # of a request to another model


class Delivery:
    """One image. Used from one event loop, once."""

    def __init__(self, parts: Parts, deciding: Deciding, context: RequestContext) -> None:
        self._parts = parts
        self._deciding = deciding
        self._context = context
        self._moves_left = MAX_MOVES if parts.dispatchers.are_several else 0
        self._excluded: frozenset[str] = frozenset()
        self._left: frozenset[str] = frozenset()
        self._loop = asyncio.get_running_loop()

    async def draw(self) -> Events:
        """Try a worker; try another one while no byte of the image has gone out.

        Raises:
            GatewayError: it failed.
        """
        metrics = self._parts.metrics
        told, holds = ToldSteps(), self._parts.safety.checks_images or self._parts.signer is not None
        request = self._context.request
        watched = self._parts.samples.watch(self._context, self._parts.rules)
        failures = RequestFailures(hash((request.prompt, request.negative_prompt)))
        for retries in range(MAX_RETRIES + 1):
            attempt = await self._attempt()
            connection, worker = attempt.connection, attempt.connection.name
            queued_s = self._loop.time() - self._context.arrived_s
            metrics.in_flight.inc()
            try:
                held: list[ToldEvent] = []  # the image, until it may be sent
                watched.begin()
                async with aclosing(self._send(attempt, worker)) as events:
                    async for event in events:
                        watched.take_in(event)
                        if holds and is_of_image(event):
                            held.append(event)
                        elif told.is_new(event):
                            yield event
                failures.drawn(connection.failures)
                if held:
                    attempt.end()  # the worker is done with it
                    for event in await self._finish_image(held):
                        yield event
                    await attempt.keep_latent()
                total_s = self._loop.time() - self._context.arrived_s
                yield self._done(attempt, Waited(queued_s, total_s, retries), worker)
                watched.sent(attempt.finished)
                return
            except WorkerLost as error:
                if (more := connection.failures.lost_lines.take()) is not None:
                    text, code = "worker %s lost a request (%s), try %d of request %s%s", error.code.name
                    log.warning(text, worker, code, retries + 1, request.request_id, more)
                if not (error.gave_up or attempt.outdated):  # else its load or its connection is judged
                    failures.lost(connection.failures, error.code)
                if attempt.image_sent:
                    raise WorkersUnavailable("the worker was lost while it sent the image") from error
                if error.gave_up:  # it was slow, and may be the only one later
                    self._left |= {worker}
                elif not attempt.outdated:  # else its connection was lost, not the worker
                    self._excluded |= {worker}
                metrics.retries.inc()
            finally:
                metrics.in_flight.dec()
                attempt.end()
                self._learn_start(attempt, worker)
        raise WorkersUnavailable(f"the request failed on {MAX_RETRIES + 1} workers")

    async def _attempt(self) -> Attempt:
        """A slot at a worker of the model that it is meant for. If none is left or in time, of another model."""
        may_move = self._moves_left > 0
        while True:
            level = self._context.decided.served.level
            try:
                return await self._parts.dispatchers.attempt(self.place(may_move))
            except ModelGone:
                moved = self._deciding.anew(self._context) if self._moves_left else None
                if moved is not None:
                    self._move(moved, "whose workers are gone")
                elif not may_move:
                    raise
                may_move = moved is not None and self._moves_left > 0  # else it waits as long as others do
            except ModelLate as error:
                moved = self._deciding.sooner(self._context)
                if moved is None:
                    raise self._parts.dispatchers.of_model(level.model).refused(error.late, level) from error
                self._move(moved, "where it would be late")
                may_move = self._moves_left > 0

    def _move(self, moved: RequestContext, why: str) -> None:
        """To the model of this decision."""
        self._moves_left -= 1
        left, to = self._context.decided.served.level.model, moved.decided.served.level.model
        self._context = moved
        parts, more = self._parts, self._parts.dispatchers.of_model(left).moved_lines.take()
        if more is not None:
            name_of, number = parts.names.name_of, moved.request.request_id
            text = "request %s moves from the model %s, %s, to %s%s"
            log.info(text, number, name_of(left), why, name_of(to), more)

    async def _finish_image(self, image: Sequence[ToldEvent]) -> Sequence[ToldEvent]:
        request, left_s, signer = self._context.request, self._left_s(), self._parts.signer
        await self._parts.safety.check_image(request, self._context.tenant, image, left_s)
        if signer is None:
            return image
        return await signer.signed(request, image, self._context.decided.served.level.model)

    def place(self, may_move: bool = False) -> QueuePlace:
        """What it needs of a worker."""
        context, holders = self._context, None
        level = context.decided.served.level
        if context.holdings is not None and level.needs_latent:
            holders = partial(self._parts.neighbours.holders, context.prefix, context.neighbour)
        return QueuePlace(
            tenant=context.tenant,
            level=level,
            deadline_s=context.deadline_s,
            excluded=self._excluded,
            left=self._left,
            step_cost=context.step_cost,
            steps_share=context.request.drawing.images.steps_share,
            holders=holders,
            may_move=may_move,
        )

    def _left_s(self) -> float:
        return self._context.deadline_s - self._loop.time()

    def _send(self, attempt: Attempt, worker: str) -> Events:
        context, parts, left_s = self._context, self._parts, max(0.001, self._left_s())
        reached = parts.neighbours.reaches(worker, context.prefix, context.neighbour)
        message = worker_request(context, parts.spec, left_s, reached)
        notes = file_notes(context.request, parts.pool, parts.spec, context.decided.served.level.model)
        if notes is not None:
            message.file_notes.CopyFrom(notes)
        if parts.dispatchers.gateways > 1:
            parts.dispatchers.tell_others(message, parts.planning.rate_rps)
        return attempt.send(message, left_s)

    def _learn_start(self, attempt: Attempt, worker: str) -> None:
        context = self._context
        level, near, prefix = context.decided.served.level, context.neighbour, context.prefix
        if attempt.started is None or not level.needs_latent or near is None or prefix is None:
            return
        skipped = attempt.started.served.skipped_steps
        if skipped < level.skipped_steps:
            self._parts.metrics.latent_misses.labels(attempt.started.reason).inc()
        key = prefix.key(near.entry_id, context.base_steps)
        self._parts.neighbours.started(key, skipped > 0, attempt.started.reason, worker)

    def _done(self, attempt: Attempt, waited: Waited, worker: str) -> gateway_pb2.GenerateEvent:
        """The last event; counts what was served and takes in what was stored."""
        context, finished, started = self._context, attempt.finished, attempt.started
        if finished is None or started is None:
            raise GenerationFailed("the worker ended without a result")
        if finished.stored and context.prefix is not None and context.embedding is not None:
            stored = [(latent.step, latent.size_bytes) for latent in finished.stored]
            self._parts.neighbours.stored(context.prefix, context.embedding, stored, worker)
        event = done_event(context, started, finished, waited)
        self._count_served(event.done, finished, waited)
        return event

    def _count_served(self, done: gateway_pb2.Done, finished: worker_pb2.Finished, waited: Waited) -> None:
        metrics, request = self._parts.metrics, self._context.request
        level = to_level(finished.served)
        metrics.served.labels(self._parts.rules.label(level)).inc()
        metrics.model_images.labels(self._parts.names.name_of(level.model)).inc()
        metrics.sizes.labels(self._parts.spec.model.size_label(request.size)).inc()
        metrics.steps_run.inc(steps_run(done))
        metrics.steps_skipped.inc(level.skipped_steps)
        metrics.queue.observe(waited.queued_s)
        metrics.denoise.observe(finished.denoise_ms / 1e3)
        metrics.encode.observe(finished.encode_ms / 1e3)
        metrics.duration.observe(waited.total_s)
        if level.needs_latent:
            metrics.hits.labels(band_of(self._context.decided.near.similarity)).inc()
