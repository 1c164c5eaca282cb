"""The spans of a job: the gateway's call, and within it waiting for the batch, denoising step by step, image, latent.

They follow the engine's events, so every engine has them. They hold no prompt.
"""

import time
from collections.abc import Iterable

from opentelemetry import trace
from opentelemetry.trace import INVALID_SPAN, Span, SpanKind

from t2i_runtime.tracing import WORKER_METHOD, begin_span, parent_in, set_code
from t2i_worker.jobs import Event, Finished, Image, Joined, Progress


class JobSpans:
    """Of one call. Its phases are in a row: one ends where the next begins."""

    def __init__(self, headers: Iterable[tuple[str, str | bytes]]) -> None:
        about = {"rpc.system.name": "grpc", "rpc.method": WORKER_METHOD}
        self._call = begin_span(WORKER_METHOD, parent_in(headers), SpanKind.SERVER, about)
        self._on = self._call.is_recording()
        self._phase: Span = INVALID_SPAN
        self._enter("wait")

    def take_in(self, event: Event) -> None:
        """Note what the engine says."""
        if not self._on:
            return
        match event:
            case Joined():
                self._enter("denoise")
                self._phase.set_attributes(_told(event))
            case Progress(step, num_inference_steps):
                self._phase.add_event("step", {"t2i.step": step})
                if step >= num_inference_steps:
                    self._enter("image")
            case Image(data, image_format):
                self._phase.set_attributes({"t2i.format": image_format, "t2i.bytes": len(data)})
                self._enter("latent")
            case Finished(stored=stored):
                self._phase.set_attribute("t2i.stored", bool(stored))

    def end(self, code: str) -> None:
        """The call ended with this code of gRPC."""
        self._phase.end()
        set_code(self._call, code)
        self._call.end()

    def _enter(self, name: str) -> None:
        if not self._on:
            return
        now_ns = time.time_ns()
        self._phase.end(now_ns)
        self._phase = begin_span(name, trace.set_span_in_context(self._call), start_ns=now_ns)


def _told(joined: Joined) -> dict[str, str | int]:
    return {
        "t2i.level.served": joined.served.phrase,
        "t2i.start": joined.reason,
        "t2i.batch_size": joined.batch_size,
        "t2i.steps": joined.num_steps or joined.served.steps_run,
    }
