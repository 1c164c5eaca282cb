"""POST /v1/images/generations and /v1/images/edits: the director's events become an answer, or a stream of events."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from t2i_api.pool import Pool
from t2i_gateway.doors.answers import (
    AnsweredImage,
    Pieces,
    completed_event,
    error_event,
    full_answer,
    partial_event,
)
from t2i_gateway.doors.errors import CLIENT_GONE, ClientGone, error_body, status_of
from t2i_gateway.doors.fields import ImageBody, to_message
from t2i_gateway.doors.forms import FORM_TYPE, JSON_TYPE, AskedImages, read_edit, read_generation
from t2i_gateway.doors.models import check_model, demanded_model
from t2i_gateway.doors.reading import check_length, check_type, read_body, told_bytes, while_connected
from t2i_gateway.doors.sending import END, Outbox, send_whole, start, unread_answer
from t2i_gateway.events import Events, PassedChunk, ToldEvent, is_done
from t2i_gateway.held_requests import HeldAnswer
from t2i_gateway.identity import Identities
from t2i_gateway.intake import Intake, counted
from t2i_gateway.metrics import GatewayMetrics
from t2i_gateway.results import ResultStore
from t2i_gateway.status import SHOWN_ERRORS, ShownError
from t2i_policy.image_size import ImageSize
from t2i_runtime.input_images import MAX_ALL_BYTES

MAX_JSON_BYTES = 256 << 10  # two texts of 4096 characters, each of twelve bytes as JSON writes it, and the rest
MAX_ENCODED_BYTES = MAX_ALL_BYTES * 4 // 3  # in base64
MAX_FORM_BYTES = MAX_ALL_BYTES + MAX_JSON_BYTES
SLOS_WITHOUT_TIMEOUT = 10
STREAM_GRACE_S = 30.0  # beyond a request's longest time, for a slow reader
READ_TIMEOUT = "x-stainless-read-timeout"  # OpenAI's clients tell how many seconds they wait
RELAY_MARGIN_S = 0.1
IDEMPOTENCY_KEY = "idempotency-key"


@dataclass(frozen=True, slots=True)
class HttpImageTask:
    """What differs between drawing and editing. `method` stands beside gRPC's in the metric of requests, `event` before
    the names of a stream's events. `encoded_bytes`: so much longer a body may be where the pool has components to show
    images to.
    """

    method: str
    event: str
    media_type: str
    most_bytes: int
    read: Callable[[Request, bytes], Awaitable[AskedImages]]
    encoded_bytes: int = 0


GENERATIONS = HttpImageTask(
    "ImagesGenerations", "image_generation", JSON_TYPE, MAX_JSON_BYTES, read_generation, MAX_ENCODED_BYTES
)
EDITS = HttpImageTask("ImagesEdits", "image_edit", FORM_TYPE, MAX_FORM_BYTES, read_edit)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that was read."""

    task: HttpImageTask
    body: ImageBody
    events: Events
    default_size: ImageSize
    results: ResultStore | None = None

    @property
    def link_store(self) -> ResultStore | None:
        """Where its images are kept, if it asks for links."""
        return self.results if self.body.response_format == "url" else None

    @property
    def size(self) -> str:
        return str(self.default_size) if self.body.size in (None, "auto") else str(self.body.size)


@dataclass(frozen=True, slots=True)
class ImagesRoute:
    """One of the routes, as an ASGI application."""

    task: HttpImageTask
    pool: Pool
    intake: Intake
    identities: Identities
    metrics: GatewayMetrics
    results: ResultStore | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises:
        GatewayError, CallerUnknown: before an answer began.
        """
        request = Request(scope, receive)
        try:
            await self._serve(request, send)
        except ClientGone:
            request.state.status = CLIENT_GONE

    async def _serve(self, request: Request, send: Send) -> None:
        task = self.task
        with counted(self.metrics, task.method) as ending:
            tenant = self.identities.tenant_of(request.headers.items(), request.state.auth_context)
            check_type(request, task.media_type)
            most_bytes = task.most_bytes + (task.encoded_bytes if self.pool.spec.model.components else 0)
            check_length(request, most_bytes)
            with self.intake.held(told_bytes(request, most_bytes)):
                wanted = await task.read(request, await read_body(request, most_bytes))
                asked = self._ask(request, wanted, tenant)
                if not asked.body.stream:
                    await while_connected(request.receive, _answer(asked, send, self.intake))
                elif error := await self._streamed(request, asked, send):
                    ending.failed(error)
                    request.state.status = status_of(error)

    async def _streamed(self, request: Request, asked: Asked, send: Send) -> ShownError | None:
        """It is drawn within the longest time of any request, and a client gets a moment more to read it."""
        try:
            async with asyncio.timeout(self._most_s + STREAM_GRACE_S):
                return await while_connected(request.receive, _stream(asked, send, self.intake))
        except TimeoutError:
            raise ClientGone from None

    @property
    def _most_s(self) -> float:
        return SLOS_WITHOUT_TIMEOUT * self.pool.spec.slo.latency_s

    def _ask(self, request: Request, wanted: AskedImages, tenant: str) -> Asked:
        body = wanted.body
        check_model(body.model, self.pool)
        message = to_message(body, self.pool.spec, request.headers.get(IDEMPOTENCY_KEY, ""))
        message.model = demanded_model(body.model, self.pool)
        if wanted.files is not None:
            message.drawing.images.MergeFrom(wanted.files)
        events = self.intake.generate(message, tenant, self._left_s(request, body), request.state.request_id)
        return Asked(self.task, body, events, self.pool.spec.model.default_size, self.results)

    def _left_s(self, request: Request, body: ImageBody) -> float | None:
        """The client's own patience where it tells it, as far as the pool's goes. A stream's tells of its gaps only."""
        told = request.headers.get(READ_TIMEOUT, "")
        if body.stream or not told.replace(".", "", 1).isdecimal():
            return None
        return min(float(told) - RELAY_MARGIN_S, self._most_s)


async def _answer(asked: Asked, send: Send, intake: Intake) -> None:
    images = [AnsweredImage(as_file=asked.link_store is not None) for _ in range(asked.body.n or 1)]
    with unread_answer(intake) as held:
        async with aclosing(asked.events) as events:
            async for event in events:
                held.add(images[event.image_index].take_in(event))
        links = await _kept(asked, images, held)
        pieces = full_answer(asked.body, images[0].accepted.request_id, images, links)
        size = sum(map(len, pieces))
        held.add(size - held.size_bytes)
        for image in images:
            image.forget()  # so that what was read is free
        await start(send, [(b"content-type", b"application/json"), (b"content-length", str(size).encode())])
        await send_whole(send, pieces, held)


async def _kept(asked: Asked, images: Sequence[AnsweredImage], held: HeldAnswer) -> list[str] | None:
    """Links to the images, if that is what was asked for."""
    if asked.link_store is None:
        return None
    files = [image.file for image in images]
    held.add(sum(map(len, files)))
    return await asked.link_store.keep(files, asked.body.format_name)


async def _stream(asked: Asked, send: Send, intake: Intake) -> ShownError | None:
    """Headers go out with the first event, so that a refusal has its own status. Gives the error that ended it.

    Drawing goes on while the client reads, so a slow reader holds no worker back.
    """
    images = [AnsweredImage() for _ in range(asked.body.n or 1)]
    with unread_answer(intake) as held:
        async with aclosing(asked.events) as events:
            first = await anext(events)
            images[first.image_index].take_in(first)
            await start(send, [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")])
            outbox = Outbox(send, held)
            sending = asyncio.create_task(outbox.run())
            try:
                failed = await _put_events(asked, events, images, outbox)
                await sending
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
        await send(END)  # the last thing that is done: from then on the client counts as gone
    return failed


async def _put_events(
    asked: Asked, events: Events, images: Sequence[AnsweredImage], outbox: Outbox
) -> ShownError | None:
    failed: ShownError | None = None
    try:
        async for event in events:
            image = images[event.image_index]
            image.take_in(event)
            outbox.put(_told(asked, event, image))
            if is_done(event):
                image.forget()
    except SHOWN_ERRORS as error:
        failed = error
        outbox.put(error_event(error_body(error)))
    outbox.close()
    return failed


def _told(asked: Asked, event: ToldEvent, image: AnsweredImage) -> Pieces:
    """What the client is told of an event; most say nothing."""
    index = event.image_index
    if isinstance(event, PassedChunk):
        return []
    if is_done(event):
        return completed_event(asked.task.event, asked.body, image.accepted.request_id, image, index)
    if event.HasField("preview") and image.num_previews < (asked.body.partial_images or 0):
        image.num_previews += 1
        place = {"partial_image_index": image.num_previews - 1, "image_index": index}
        return partial_event(asked.task.event, asked.body, asked.size, event.preview, place)
    return []
