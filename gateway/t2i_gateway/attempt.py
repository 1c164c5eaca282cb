"""From a worker's events to the client's: one attempt at one worker.

Says what went wrong in terms of what to do next: another worker may try (`WorkerLost`), or nobody should.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import grpc

from t2i_gateway.errors import DeadlineExceeded, GenerationFailed
from t2i_gateway.workers.connection import WorkerCall
from t2i_gateway.workers.slot import Slot
from t2i_protos.v1 import gateway_pb2, level_pb2, worker_pb2

_LOST = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
}


MIN_STEPS_BEFORE_START = 20  # text encoding and the latent's fetch come first
AFTER_IMAGE_S = 10.0  # the worker stores latents, and moving would lose what the client has


class WorkerLost(Exception):
    """This worker could not finish the request; another may. `code` is what it said, unless we `gave_up` on it."""

    def __init__(self, code: grpc.StatusCode, gave_up: bool = False) -> None:
        super().__init__(code.name)
        self.code = code
        self.gave_up = gave_up


@dataclass(slots=True)
class Attempt:
    """What one attempt has shown so far. `previews`: the client asked for some."""

    previews: bool = False
    started: worker_pb2.Started | None = None
    finished: worker_pb2.Finished | None = None
    image_sent: bool = False
    events: int = field(default=0)


async def relay(call: WorkerCall, lease: Slot, attempt: Attempt) -> AsyncIterator[gateway_pb2.GenerateEvent]:
    """Yield the client's events as the worker's come in; fills `attempt`, keeps `lease` up to date.

    A worker that says nothing for far longer than its steps take is given up as lost, and so is one that is left out
    meanwhile, if another is faster in spite of what is done already (`t2i_policy.outliers.moves`).

    Raises:
        WorkerLost, DeadlineExceeded, GenerationFailed: see `errors`.
    """
    try:
        while True:
            event = await lease.next_event(call, _limit_s(lease, attempt))
            if not isinstance(event, worker_pb2.WorkerEvent):
                break  # the end of the stream
            message = _translate(event, lease, attempt)
            if message is not None:
                yield message
    except TimeoutError as error:
        raise WorkerLost(grpc.StatusCode.UNAVAILABLE, gave_up=True) from error
    except grpc.aio.AioRpcError as error:
        raise _failure(error.code()) from error
    finally:
        call.cancel()
    if attempt.finished is None:
        raise WorkerLost(grpc.StatusCode.UNAVAILABLE)


def _limit_s(lease: Slot, attempt: Attempt) -> float:
    """How long the next event may take. Before it started, a request may have to see a whole other one through; texts,
    previews and images of a whole batch may be encoded at once."""
    link = lease.link
    if attempt.image_sent:
        return max(AFTER_IMAGE_S, link.patience_s(1, link.batch_cap))
    if attempt.started is None:
        return link.patience_s(max(lease.steps_left, MIN_STEPS_BEFORE_START), link.batch_cap)
    if not lease.steps_left:
        return link.patience_s(1, link.batch_cap)
    return link.patience_s(max(1, attempt.started.report_every_steps), link.batch_cap if attempt.previews else 0)


def _translate(event: worker_pb2.WorkerEvent, lease: Slot, attempt: Attempt) -> gateway_pb2.GenerateEvent | None:
    match event.WhichOneof("event"):
        case "started":
            attempt.started = event.started
            lease.start(event.started.served.num_inference_steps - event.started.served.skipped_steps)
        case "progress":
            progress: level_pb2.StepProgress = event.progress
            lease.step_to(progress.num_inference_steps - progress.step)
            return gateway_pb2.GenerateEvent(progress=progress)
        case "preview":
            lease.pause()
            return gateway_pb2.GenerateEvent(preview=event.preview)
        case "image":
            attempt.image_sent, lease.may_move = True, False
            return gateway_pb2.GenerateEvent(image=event.image)
        case "chunk":
            return gateway_pb2.GenerateEvent(chunk=event.chunk)
        case "finished":
            attempt.finished = event.finished
    return None


def _failure(code: grpc.StatusCode) -> Exception:
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceeded("the deadline passed before the image was done")
    if code in _LOST:
        return WorkerLost(code)
    return GenerationFailed("the worker could not run the request")
