"""Traces: the spans of a request in each process that it passes, sent to an OpenTelemetry collector.

Off, unless OpenTelemetry's own variables name a collector. Code that begins spans knows its API alone, which does
nothing without the SDK of the extra `tracing`. A queue of bounded length holds ended spans, and a thread of the SDK
sends them. So a collector that is slow or away delays nothing: spans are lost instead.

No span holds a prompt, nor the text of an exception, which may hold one.
"""

import logging
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from t2i_protos.v1 import worker_pb2
from t2i_runtime.product import PRODUCT, VERSION

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

log = logging.getLogger(__name__)
CLOSE_LIMIT_S = 2.0  # for the last spans, at the end of a process
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
EXPORTER = "OTEL_TRACES_EXPORTER"
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
DISABLED = "OTEL_SDK_DISABLED"
EXPORTERS = {
    "grpc": "opentelemetry.exporter.otlp.proto.grpc.trace_exporter",
    "http/protobuf": "opentelemetry.exporter.otlp.proto.http.trace_exporter",
}
HEADERS = ("traceparent", "tracestate")
#: By OpenTelemetry's conventions these of a server's codes are errors, the others are answers.
SERVER_ERRORS = ("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS")
#: The call between the processes of a request, as traces name it; its path on the wire has a slash before it.
WORKER_METHOD = f"{worker_pb2.DESCRIPTOR.services_by_name['Worker'].full_name}/Generate"
Attributes = Mapping[str, str | int | float | bool]
_TRACER = trace.get_tracer(PRODUCT, VERSION)
_PROPAGATOR = TraceContextTextMapPropagator()


def begin_span(
    name: str,
    parent: Context | None = None,
    kind: SpanKind = SpanKind.INTERNAL,
    attributes: Attributes | None = None,
    *,
    start_ns: int | None = None,
) -> Span:
    """A span that the caller ends; without `parent` it belongs to the current one."""
    return _TRACER.start_span(name, parent, kind, attributes, start_time=start_ns, record_exception=False)


@contextmanager
def within_span(name: str, attributes: Attributes | None = None) -> Iterator[Span]:
    """A span around what runs inside. No generator may yield within it: the span would be current outside too."""
    span = begin_span(name, attributes=attributes)
    try:
        with trace.use_span(span, record_exception=False, set_status_on_exception=False):
            yield span
    except BaseException as error:
        mark_failed(span, type(error).__name__)
        raise
    finally:
        span.end()


def mark_failed(span: Span, kind: str) -> None:
    """`kind` is a code or the name of a class, never the text of an error."""
    span.set_attribute("error.type", kind)
    span.set_status(Status(StatusCode.ERROR))


def set_code(span: Span, code: str) -> None:
    """How a served call of gRPC ended."""
    span.set_attribute("rpc.response.status_code", code)
    if code in SERVER_ERRORS:
        mark_failed(span, code)


def parent_in(headers: Iterable[tuple[str, str | bytes]]) -> Context:
    """The caller's span, as W3C's `traceparent` and `tracestate` name it. Without them, or broken ones, a root."""
    told = {name: value for name, value in headers if name in HEADERS and isinstance(value, str)}
    return _PROPAGATOR.extract(told, Context())


def trace_headers(span: Span | None = None) -> tuple[tuple[str, str], ...]:
    """What tells the next process of this span, or of the current one; empty if there is none."""
    headers: dict[str, str] = {}
    _PROPAGATOR.inject(headers, None if span is None else trace.set_span_in_context(span))
    return tuple(headers.items())


@contextmanager
def traces_sent(service: str, attributes: Attributes, environment: Mapping[str, str] = os.environ) -> Iterator[None]:
    """Within it spans go to the collector that the environment names, if it does. OTEL_* variables win over `service`
    and `attributes`.
    """
    exporter = _open_exporter(environment) if is_wanted(environment) else None
    if exporter is None:
        yield
        return
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    own = {"service.name": service, "service.version": VERSION, **attributes}
    resource = Resource.create(own).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    log.info("traces go to an OpenTelemetry collector")
    try:
        yield
    finally:
        ending = threading.Thread(target=provider.shutdown, name="traces-end", daemon=True)
        ending.start()
        ending.join(CLOSE_LIMIT_S)


def is_wanted(environment: Mapping[str, str]) -> bool:
    """Whether the environment names a collector, or asks for OTLP at its usual place."""
    exporter = environment.get(EXPORTER, "").strip().lower()
    if environment.get(DISABLED, "").strip().lower() == "true" or exporter == "none":
        return False
    if exporter not in ("", "otlp"):
        log.warning("%s: only otlp and none are known here, so no traces are sent", EXPORTER)
        return False
    return exporter == "otlp" or any(environment.get(name) for name in ENDPOINTS)


def _open_exporter(environment: Mapping[str, str]) -> "SpanExporter | None":
    """None, with a warning, if it cannot be made: a pool serves without traces too."""
    protocol = next((value for name in PROTOCOLS if (value := environment.get(name, "").strip())), "grpc")
    module = EXPORTERS.get(protocol)
    if module is None:
        log.warning("%s: must be grpc or http/protobuf, so no traces are sent", PROTOCOLS[1])
        return None
    try:
        made: SpanExporter = import_module(module).OTLPSpanExporter()
    except ImportError:
        log.warning("no traces are sent: install the extra `tracing` of t2i-serving")
    except (ValueError, OSError) as error:
        log.warning("no traces are sent: the OTEL_EXPORTER_OTLP_* variables do not fit (%s)", type(error).__name__)
    else:
        return made
    return None
