"""A collector of traces, by OTLP over gRPC: it keeps what it gets, in the words of OpenTelemetry's own messages."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as messages
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as services
from opentelemetry.proto.trace.v1.trace_pb2 import Span

WITHIN_S = 60.0


@dataclass(frozen=True, slots=True)
class SentSpan:
    """One span, and the process that sent it."""

    span: Span
    process: dict[str, Any]

    @property
    def told(self) -> dict[str, Any]:
        """Its attributes."""
        return _told(self.span.attributes)

    @property
    def trace_id(self) -> str:
        return self.span.trace_id.hex()


@dataclass(slots=True)
class OtlpReceiver(services.TraceServiceServicer):
    """The collector; `raw` is all bytes that came."""

    address: str = ""
    spans: list[SentSpan] = field(default_factory=list)
    raw: bytes = b""
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    async def Export(self, request: Any, context: Any) -> Any:
        self.raw += request.SerializeToString()
        for resource in request.resource_spans:
            process = _told(resource.resource.attributes)
            self.spans += [SentSpan(span, process) for scope in resource.scope_spans for span in scope.spans]
        self._news.set()
        return messages.ExportTraceServiceResponse()

    async def until(self, reached: Callable[[list[SentSpan]], bool]) -> list[SentSpan]:
        """All spans, once they are as wanted."""
        try:
            async with asyncio.timeout(WITHIN_S):
                while not reached(self.spans):
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            seen = [(one.process.get("service.name"), one.span.name) for one in self.spans]
            raise AssertionError(f"the spans never came; there were {seen}") from None
        return self.spans

    async def trace(self, trace_id: str, count: int) -> list[SentSpan]:
        """The spans of one trace, once there are so many."""

        def own(spans: list[SentSpan]) -> list[SentSpan]:
            return [one for one in spans if one.trace_id == trace_id]

        return own(await self.until(lambda spans: len(own(spans)) >= count))


@asynccontextmanager
async def otlp_receiver() -> AsyncIterator[OtlpReceiver]:
    """A receiver on a free port of this machine."""
    server, receiver = grpc.aio.server(), OtlpReceiver()
    services.add_TraceServiceServicer_to_server(receiver, server)
    receiver.address = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield receiver
    finally:
        await server.stop(None)


def _told(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, str(one.value.WhichOneof("value"))) for one in attributes}


def tree(spans: list[SentSpan], root: bytes) -> dict[str, Any]:
    """Names below the span with this id, as nested maps; equal names are one."""
    found: dict[str, Any] = {}
    for one in spans:
        if one.span.parent_span_id == root:
            found.setdefault(one.span.name, {}).update(tree(spans, one.span.span_id))
    return found
