"""The worker's gRPC service: it translates messages to jobs, and events, load and latents to messages."""

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import aclosing
from dataclasses import asdict
from math import isfinite
from typing import Any

import grpc

from t2i_cache.errors import FollowerTooSlow
from t2i_cache.stores.bounded import HeldLatents, LatentNews
from t2i_policy.readiness import Readiness
from t2i_protos.v1 import level_pb2, worker_pb2, worker_pb2_grpc
from t2i_runtime.level_messages import level_message
from t2i_worker.errors import WorkerDraining, WorkerError, where
from t2i_worker.gateway_queues import GatewayQueues
from t2i_worker.held_model import HeldModel
from t2i_worker.job_spans import JobSpans
from t2i_worker.jobs import Event, Finished, Image, Joined, Load, PreviewImage, Progress, StoredLatent
from t2i_worker.metrics import WorkerMetrics
from t2i_worker.status import to_status
from t2i_worker.validation import FORMATS, parse_request

log = logging.getLogger(__name__)
CHUNK_BYTES = 1 << 20  # below gRPC's limit of 4 MiB for a message
LOAD_MIN_INTERVAL_S = 0.05  # changes within this time are sent together
LATENTS_MAX_INTERVAL_S = 5.0
LOAD_MAX_INTERVAL_S = 0.25  # a gateway believes that a worker stands still after a few of these without a report
_FORMATS = {name: value for value, name in FORMATS.items() if value != level_pb2.OUTPUT_FORMAT_UNSPECIFIED}
Context = grpc.aio.ServicerContext[Any, Any]


class WorkerService(worker_pb2_grpc.WorkerServicer):
    """Answers UNAVAILABLE until an engine is attached. worker.proto describes the methods."""

    def __init__(self, name: str, group: str, metrics: WorkerMetrics) -> None:
        self._name = name
        self._group = group
        self._warm_engine: HeldModel | None = None
        self._metrics = metrics
        self._queues = GatewayQueues(time.monotonic)

    def attach(self, engine: HeldModel) -> None:
        """Serve with this warm engine from now on."""
        self._warm_engine = engine
        self._metrics.attach(engine)

    def readiness(self) -> Readiness | None:
        """The engine's readiness; None while it warms up."""
        return None if self._warm_engine is None else self._warm_engine.readiness()

    @property
    def _engine(self) -> HeldModel:
        if self._warm_engine is None:
            raise WorkerDraining("the worker is still warming up")
        return self._warm_engine

    async def Generate(
        self, request: worker_pb2.WorkerGenerateRequest, context: Context
    ) -> AsyncIterator[worker_pb2.WorkerEvent]:
        outcome = "CANCELLED"
        spans = JobSpans(context.invocation_metadata() or ())
        try:
            self._queues.take_in(request)
            job = parse_request(request, self._engine.facts)
            async with aclosing(self._engine.generate(job)) as events:
                async for event in events:
                    spans.take_in(event)
                    for message in to_messages(event):
                        yield message
                    if isinstance(event, Finished) and not request.background:
                        self._metrics.observe(event)
            outcome = "OK"
        except WorkerError as error:
            status = to_status(error)
            outcome = status.code.name
            await context.abort_with_status(status)
        except Exception as error:  # noqa: BLE001 - the client gets a status whatever a library raises
            outcome = "INTERNAL"
            # Log only the place: the text of an exception may hold a prompt.
            log.error("a bug ended a request: %s", where(error))  # noqa: TRY400
            await context.abort(grpc.StatusCode.INTERNAL, "the worker failed on this request")
        finally:
            spans.end(outcome)
            self._metrics.count_request(outcome, background=request.background)

    async def _require_warm(self, context: Context) -> None:
        """Abort the call if there is no engine yet."""
        if self._warm_engine is None:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the worker is still warming up")

    async def WatchLoad(
        self, request: worker_pb2.WatchLoadRequest, context: Context
    ) -> AsyncIterator[worker_pb2.WorkerLoad]:
        del request
        await self._require_warm(context)
        while True:
            changed = asyncio.ensure_future(self._engine.changed())
            try:
                await asyncio.sleep(0)  # let `changed` begin to listen before the load is read, or a change is missed
                load = to_load_message(self._engine.load())
                load.gateway_queues.extend(self._queues.current())
                yield load
                await asyncio.sleep(LOAD_MIN_INTERVAL_S)
                await asyncio.wait([changed], timeout=LOAD_MAX_INTERVAL_S - LOAD_MIN_INTERVAL_S)
            finally:
                changed.cancel()

    async def Describe(self, request: worker_pb2.DescribeRequest, context: Context) -> worker_pb2.WorkerDescription:
        del request
        await self._require_warm(context)
        try:
            facts = self._engine.facts
        except WorkerError as error:
            await context.abort_with_status(to_status(error))
        sizes = [worker_pb2.SizeCost(**size._asdict(), step_cost=cost) for size, cost in facts.sizes]
        # The fields of ModelFacts have the same names on the wire.
        told = asdict(facts) | {"sizes": sizes}
        return worker_pb2.WorkerDescription(name=self._name, group=self._group, **told)

    async def KeepLatent(
        self, request: worker_pb2.KeepLatentRequest, context: Context
    ) -> worker_pb2.KeepLatentResponse:
        await self._require_warm(context)
        return worker_pb2.KeepLatentResponse(stored=_stored(await self._engine.keep_latent(request.held_id)))

    async def HoldModel(self, request: worker_pb2.HoldModelRequest, context: Context) -> worker_pb2.HoldModelResponse:
        await self._require_warm(context)
        try:
            self._engine.hold(request.model, request.revision)
        except WorkerError as error:
            await context.abort_with_status(to_status(error))
        return worker_pb2.HoldModelResponse()

    async def WatchLatents(
        self, request: worker_pb2.WatchLatentsRequest, context: Context
    ) -> AsyncIterator[worker_pb2.LatentChanges]:
        del request
        await self._require_warm(context)
        store = self._engine.own_latents
        if store is None:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "this worker has no latent store of its own")
            return
        try:
            async with aclosing(store.follow(LATENTS_MAX_INTERVAL_S)) as news:
                async for one in news:
                    yield to_latent_changes(one)
        except FollowerTooSlow as error:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))


def to_load_message(load: Load) -> worker_pb2.WorkerLoad:
    return worker_pb2.WorkerLoad(
        ready=load.ready,
        draining=load.draining,
        running=load.running,
        waiting=load.waiting,
        batch_cap=load.batch_cap,
        queue_cap=load.queue_cap,
        step_ms=[1e3 * seconds for seconds in load.step_s],
        fixed_ms=1e3 * load.fixed_s,
        steps_left=load.steps_left,
        places=load.places,
        next_within_ms=round(1e3 * LOAD_MAX_INTERVAL_S),
        steps_took_ms=1e3 * load.steps_took_s,
        steps_usual_ms=1e3 * load.steps_usual_s,
        step_age_ms=1e3 * load.step_age_s,
        encode_age_ms=1e3 * load.encode_age_s,
        longest_step_ms=1e3 * load.longest_step_s if isfinite(load.longest_step_s) else 0.0,
        background=load.background,
        model=load.model,
    )


def to_messages(event: Event) -> Iterator[worker_pb2.WorkerEvent]:
    """Translate an event; an image becomes one message that announces it and one a chunk."""
    match event:
        case Joined(served, reason, batch_size, cuts, num_steps):
            started = worker_pb2.Started(
                served=level_message(served),
                reason=reason,
                batch_size=batch_size,
                num_steps=num_steps,
                prompt_cuts=[level_pb2.PromptCut(**asdict(cut)) for cut in cuts],
            )
            yield worker_pb2.WorkerEvent(started=started)
        case Progress(step, num_steps):
            yield worker_pb2.WorkerEvent(progress=level_pb2.StepProgress(step=step, num_inference_steps=num_steps))
        case PreviewImage(step, data):
            preview = level_pb2.Preview(step=step, format=level_pb2.OUTPUT_FORMAT_WEBP, data=data)
            yield worker_pb2.WorkerEvent(preview=preview)
        case Image():
            yield from _image_messages(event)
        case Finished():
            yield worker_pb2.WorkerEvent(finished=_finished(event))


def _image_messages(image: Image) -> Iterator[worker_pb2.WorkerEvent]:
    info = level_pb2.ImageInfo(
        format=_FORMATS[image.image_format],
        width=image.width,
        height=image.height,
        size_bytes=len(image.data),
        sha256=hashlib.sha256(image.data).digest(),
    )
    yield worker_pb2.WorkerEvent(image=info)
    for offset in range(0, len(image.data), CHUNK_BYTES):
        chunk = level_pb2.ImageChunk(offset=offset, data=image.data[offset : offset + CHUNK_BYTES])
        yield worker_pb2.WorkerEvent(chunk=chunk)


def to_latent_changes(news: LatentNews) -> worker_pb2.LatentChanges:
    now_s = time.time()
    return worker_pb2.LatentChanges(
        held=[_held_entry(held, now_s) for held in news.held],
        gone=[
            worker_pb2.GoneLatent(
                scope=gone.key.scope,
                model=gone.key.model,
                entry_id=gone.key.entry_id,
                step=gone.key.step,
                reason=gone.reason,
            )
            for gone in news.gone
        ],
        complete=news.complete,
        next_within_ms=round(1e3 * LATENTS_MAX_INTERVAL_S),
    )


def _held_entry(held: HeldLatents, now_s: float) -> worker_pb2.HeldEntry:
    record = held.record
    return worker_pb2.HeldEntry(
        scope=record.key.scope,
        model=record.key.model,
        entry_id=record.key.entry_id,
        embedding=record.embedding.astype("<f4").tobytes(),
        latents=[
            worker_pb2.HeldLatent(
                step=item.key.step, size_bytes=item.size_bytes, uses=item.hits, age_s=max(0.0, now_s - item.stored_s)
            )
            for item in held.items
        ],
    )


def _finished(event: Finished) -> worker_pb2.Finished:
    return worker_pb2.Finished(
        served=level_message(event.served),
        wait_ms=event.wait_ms,
        denoise_ms=event.denoise_ms,
        encode_ms=event.encode_ms,
        fetch_ms=event.fetch_ms,
        stored=_stored(event.stored),
        held_id=event.held_id,
    )


def _stored(latents: Iterable[StoredLatent]) -> list[worker_pb2.StoredLatent]:
    return [worker_pb2.StoredLatent(step=one.step, size_bytes=one.size_bytes) for one in latents]
