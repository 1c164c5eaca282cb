"""From a worker's events to the client's: one attempt at one worker.

Says what went wrong in terms of what to do next: another worker may try (`WorkerLost`), or nobody should.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import grpc

from t2i_gateway.errors import DeadlineExceeded, GenerationFailed
from t2i_gateway.links import Lease, WorkerCall
from t2i_protos.v1 import gateway_pb2, level_pb2, worker_pb2

_LOST = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
}


MIN_STEPS_BEFORE_START = 20  # text encoding and the latent's fetch come first


class WorkerLost(Exception):
    """This worker could not finish the request; another may. `code` is what it said."""

    def __init__(self, code: grpc.StatusCode) -> None:
        super().__init__(code.name)
        self.code = code


@dataclass(slots=True)
class Attempt:
    """What one attempt has shown so far."""

    started: worker_pb2.Started | None = None
    finished: worker_pb2.Finished | None = None
    image_sent: bool = False
    events: int = field(default=0)


async def relay(call: WorkerCall, lease: Lease, attempt: Attempt) -> AsyncIterator[gateway_pb2.GenerateEvent]:
    """Yield the client's events as the worker's come in; fills `attempt`, keeps `lease` up to date.

    A worker that says nothing for far longer than its steps take is given up as lost: it is frozen or cut off.

    Raises:
        WorkerLost, DeadlineExceeded, GenerationFailed: see `errors`.
    """
    try:
        while True:
            limit_s = lease.link.silence_limit_s(_steps_to_next_event(lease, attempt))
            async with asyncio.timeout(limit_s):
                event = await call.read()
            if not isinstance(event, worker_pb2.WorkerEvent):
                break  # the end of the stream
            message = _translate(event, lease, attempt)
            if message is not None:
                yield message
    except TimeoutError as error:
        lease.link.judge_silence(limit_s)
        raise WorkerLost(grpc.StatusCode.UNAVAILABLE) from error
    except grpc.aio.AioRpcError as error:
        raise _failure(error.code()) from error
    finally:
        call.cancel()
    if attempt.finished is None:
        raise WorkerLost(grpc.StatusCode.UNAVAILABLE)


def _steps_to_next_event(lease: Lease, attempt: Attempt) -> int:
    """Before it started, a request may have to see a whole other one through."""
    if attempt.started is None:
        return max(lease.steps_left, MIN_STEPS_BEFORE_START)
    return max(1, attempt.started.report_every_steps)


def _translate(event: worker_pb2.WorkerEvent, lease: Lease, attempt: Attempt) -> gateway_pb2.GenerateEvent | None:
    match event.WhichOneof("event"):
        case "started":
            attempt.started = event.started
            lease.start(event.started.served.num_inference_steps - event.started.served.skipped_steps)
        case "progress":
            progress: level_pb2.StepProgress = event.progress
            lease.step_to(progress.num_inference_steps - progress.step)
            return gateway_pb2.GenerateEvent(progress=progress)
        case "preview":
            return gateway_pb2.GenerateEvent(preview=event.preview)
        case "image":
            attempt.image_sent = True
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
