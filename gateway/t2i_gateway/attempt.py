"""One attempt at one worker: from the worker's events to the client's.

Says what went wrong in terms of what to do next: another worker may try (`WorkerLost`), or nobody should.
"""

from dataclasses import dataclass

import grpc

from t2i_gateway.errors import DeadlineExceeded, GenerationFailed
from t2i_gateway.messages import Events, relayed_event
from t2i_gateway.workers.connection import WorkerCall, WorkerConnection
from t2i_gateway.workers.slot import Slot
from t2i_protos.v1 import worker_pb2

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

    @property
    def outdated(self) -> bool:
        """True if the worker is reached over another connection since."""
        return self.slot.connection_number != self.connection.number

    async def relay(self, call: WorkerCall) -> Events:
        """Yield the client's events as the worker's come in.

        Raises:
            WorkerLost: another worker may try; also if this one was left out and another is sooner.
            DeadlineExceeded, GenerationFailed: nobody should.
        """
        try:
            while isinstance(event := await self.slot.read(call), worker_pb2.WorkerEvent):
                self._note(event)
                message = relayed_event(event)
                if message is not None:
                    yield message
        except TimeoutError as error:
            raise WorkerLost(grpc.StatusCode.UNAVAILABLE, gave_up=True) from error
        except grpc.aio.AioRpcError as error:
            raise _failure(error.code()) from error
        finally:
            call.cancel()
        if self.finished is None:
            raise WorkerLost(grpc.StatusCode.UNAVAILABLE)

    def _note(self, event: worker_pb2.WorkerEvent) -> None:
        match event.WhichOneof("event"):
            case "started":
                self.started = event.started
                self.slot.start(event.started.served.num_inference_steps - event.started.served.skipped_steps)
            case "progress":
                self.slot.step_to(event.progress.num_inference_steps - event.progress.step)
            case "image":
                self.image_sent, self.slot.may_move = True, False
            case "finished":
                self.finished = event.finished

    def end(self) -> None:
        """Give the slot back. The request may have ended in any way, or this may have been called before."""
        self.connection.leave_slot(self.slot)


def _failure(code: grpc.StatusCode) -> Exception:
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceeded("the deadline passed before the image was done")
    if code in _LOST:
        return WorkerLost(code)
    return GenerationFailed("the worker could not run the request")
