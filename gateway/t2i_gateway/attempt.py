"""One attempt at one worker: from the worker's events to the client's.

Says what went wrong in terms of what to do next: another worker may try (`WorkerLost`), or nobody should.
"""

import logging
from dataclasses import dataclass

import grpc
from opentelemetry.trace import INVALID_SPAN, Span

from t2i_gateway.errors import DeadlineExceeded, GenerationFailed, RequestInvalid
from t2i_gateway.events import Events, PassedChunk
from t2i_gateway.messages import relayed_event
from t2i_gateway.spans import begin_attempt
from t2i_gateway.workers.connection import WorkerCall, WorkerConnection
from t2i_gateway.workers.slot import Slot
from t2i_protos.v1 import worker_pb2
from t2i_runtime.errors import Violation
from t2i_runtime.status import violations_of
from t2i_runtime.tracing import mark_failed, trace_headers

log = logging.getLogger(__name__)
_LOST = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
}


class WorkerLost(Exception):
    """This worker could not finish the request; another may. `code` is what it said, unless we `gave_up` on it."""

    def __init__(self, code: grpc.StatusCode, gave_up: bool = False) -> None:
        super().__init__(code.name)
        self.code = code
        self.gave_up = gave_up


@dataclass(slots=True)
class Attempt:
    """A request's slot at a worker, and what the worker has shown of it so far."""

    connection: WorkerConnection
    slot: Slot
    started: worker_pb2.Started | None = None
    finished: worker_pb2.Finished | None = None
    image_sent: bool = False
    span: Span = INVALID_SPAN  # from the sending until the slot is given back

    @property
    def outdated(self) -> bool:
        """True if the worker is reached over another connection since."""
        return self.slot.connection_number != self.connection.number

    def send(self, message: worker_pb2.WorkerGenerateRequest, limit_s: float) -> Events:
        """Send the request; read the events as `relay` gives them."""
        self.span = begin_attempt(self.connection.name, message)
        return self.relay(self.connection.generate(message, limit_s, trace_headers(self.span)))

    async def relay(self, call: WorkerCall) -> Events:
        """Yield the client's events as the worker's come in.

        Raises:
            WorkerLost: another worker may try; also if this one was left out and another is sooner.
            DeadlineExceeded, GenerationFailed, RequestInvalid: nobody should.
        """
        try:
            while isinstance(event := await self.slot.read(call), worker_pb2.WorkerEvent | PassedChunk):
                if isinstance(event, PassedChunk):
                    yield event
                    continue
                self._note(event)
                message = relayed_event(event)
                if message is not None:
                    yield message
        except TimeoutError as error:
            mark_failed(self.span, "GaveUp")
            raise WorkerLost(grpc.StatusCode.UNAVAILABLE, gave_up=True) from error
        except grpc.aio.AioRpcError as error:
            mark_failed(self.span, error.code().name)
            raise _failure(error) from error
        finally:
            call.cancel()
        if self.finished is None:
            raise WorkerLost(grpc.StatusCode.UNAVAILABLE)

    def _note(self, event: worker_pb2.WorkerEvent) -> None:
        match event.WhichOneof("event"):
            case "started":
                self.started = event.started
                served = event.started.served
                self.slot.start(event.started.num_steps or served.num_inference_steps - served.skipped_steps)
            case "progress":
                self.slot.step_to(event.progress.num_inference_steps - event.progress.step)
            case "image":
                self.image_sent, self.slot.may_move = True, False
            case "finished":
                self.finished = event.finished

    async def keep_latent(self) -> None:
        """The image was allowed, so its latent may be kept. Without it later images start from noise, no more."""
        if self.finished is None or not self.finished.held_id:
            return
        try:
            self.finished.stored.extend(await self.connection.keep_latent(self.finished.held_id))
        except grpc.aio.AioRpcError as error:
            name = self.connection.name
            log.warning("worker %s did not keep a latent that it set aside: %s", name, error.code().name)

    def end(self) -> None:
        """Give the slot back. The request may have ended in any way, or this may have been called before."""
        self.connection.leave_slot(self.slot)
        if self.span.is_recording():
            self.span.end()


def _failure(error: grpc.aio.AioRpcError) -> Exception:
    code = error.code()
    if code is grpc.StatusCode.INVALID_ARGUMENT and (violations := violations_of(error)):
        # Only a worker knows what its model takes. Fields have one name on both wires, but for those of the level.
        return RequestInvalid([Violation(field.removeprefix("level."), text) for field, text in violations])
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceeded("the image could not be done by the deadline")
    if code in _LOST:
        return WorkerLost(code)
    return GenerationFailed("the worker could not run the request")
