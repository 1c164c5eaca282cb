"""The spans of a request in a gateway: its door's, and within it decision, queue, questions to classifiers, attempts.

What happens in between finds the door's span as the current one. No span holds a prompt, a tenant or a similarity.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec

from opentelemetry import trace
from opentelemetry.context import attach
from opentelemetry.trace import Span, SpanKind

from t2i_gateway.context import RequestContext
from t2i_protos.v1 import worker_pb2
from t2i_runtime.level_messages import to_level
from t2i_runtime.tracing import WORKER_METHOD, Attributes, begin_span, mark_failed, parent_in, within_span

P = ParamSpec("P")
FIRST_HTTP_ERROR = 500


@contextmanager
def door_span(name: str, headers: Iterable[tuple[str, str | bytes]], attributes: Attributes) -> Iterator[Span]:
    """The span of one call, current until its task ends: every call has a task of its own.

    It is never put back, because a stream that is given up ends in another task than it began in.
    """
    span = begin_span(name, parent_in(headers), SpanKind.SERVER, attributes)
    attach(trace.set_span_in_context(span))
    try:
        yield span
    finally:
        span.end()


def set_status(span: Span, status: int) -> None:
    """How a request of HTTP ended."""
    span.set_attribute("http.response.status_code", status)
    if status >= FIRST_HTTP_ERROR:
        mark_failed(span, str(status))


def spanned_decision(
    look: Callable[P, Awaitable[RequestContext]],
) -> Callable[P, Awaitable[RequestContext]]:
    """A span around a request's decision, which tells what was decided."""

    @wraps(look)
    async def looked(*arguments: P.args, **named: P.kwargs) -> RequestContext:
        with within_span("decide") as span:
            context = await look(*arguments, **named)
            if span.is_recording():
                span.set_attributes(_told(context))
            return context

    return looked


def _told(context: RequestContext) -> dict[str, str | float]:
    decided, quality = context.decided, context.quality_percent
    return {
        "t2i.request_id": context.request.request_id,
        "t2i.size": str(context.request.size),
        "t2i.level.wanted": decided.wanted.level.phrase,
        "t2i.level.served": decided.served.level.phrase,
        "t2i.reason": str(decided.reason),
        **({} if quality is None else {"t2i.expected_quality_percent": quality}),
    }


def begin_attempt(worker: str, message: worker_pb2.WorkerGenerateRequest) -> Span:
    """The span of an attempt at a worker; whoever gives the slot back ends it."""
    span = begin_span("attempt", kind=SpanKind.CLIENT)
    if span.is_recording():
        level = to_level(message.level).phrase
        span.set_attributes({"rpc.system.name": "grpc", "rpc.method": WORKER_METHOD, "t2i.worker": worker})
        span.set_attributes({"t2i.level.served": level, "t2i.seed": str(message.seed)})
    return span
