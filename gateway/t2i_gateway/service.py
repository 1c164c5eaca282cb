"""The gateway's gRPC surface: identity and checks in, events out, errors as statuses. Decides nothing."""

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, TypeVar, cast

import grpc
from google.protobuf.message import DecodeError, Message

from t2i_api.pool import PoolSpec
from t2i_gateway.director import Director
from t2i_gateway.errors import GatewayError, RequestInvalid
from t2i_gateway.idempotency import IdempotentRuns
from t2i_gateway.identity import Identities
from t2i_gateway.metrics import GatewayMetrics
from t2i_gateway.request import parse_asked
from t2i_gateway.status import to_status
from t2i_protos.v1 import gateway_pb2
from t2i_runtime.errors import CallerUnknown, Violation

Context = grpc.aio.ServicerContext[Any, Any]
SERVICE = gateway_pb2.DESCRIPTOR.services_by_name["TextToImage"].full_name
M = TypeVar("M", bound=Message)
RELAY_MARGIN_S = 0.02  # of the client's time, for the last bytes on their way


class TextToImageService:
    """See the module."""

    def __init__(self, director: Director, spec: PoolSpec, metrics: GatewayMetrics, identities: Identities) -> None:
        self._director = director
        self._spec = spec
        self._metrics = metrics
        self._identities = identities
        self._replays = IdempotentRuns()

    async def Generate(
        self, request: gateway_pb2.GenerateRequest | None, context: Context
    ) -> AsyncIterator[gateway_pb2.GenerateEvent]:
        """See gateway.proto."""
        outcome = "CANCELLED"
        try:
            async with aclosing(cast(Any, self._events(request, context))) as events:
                async for event in events:
                    yield event
            outcome = "OK"
        except (GatewayError, CallerUnknown) as error:
            status = to_status(error)
            outcome = status.code.name
            await context.abort_with_status(status)
        finally:
            self._metrics.requests.labels("Generate", outcome).inc()

    async def Explain(
        self, request: gateway_pb2.ExplainRequest | None, context: Context
    ) -> gateway_pb2.ExplainResponse:
        """See gateway.proto."""
        outcome = "CANCELLED"
        try:
            tenant = self._tenant(context)
            checked = _readable(request)
            asked = parse_asked(checked.request, self._spec)
            response = await self._director.explain(asked, tenant, _left_s(context))
            outcome = "OK"
            return response
        except (GatewayError, CallerUnknown) as error:
            status = to_status(error)
            outcome = status.code.name
            await context.abort_with_status(status)
            raise AssertionError("abort_with_status always raises") from error
        finally:
            self._metrics.requests.labels("Explain", outcome).inc()

    async def _events(
        self, request: gateway_pb2.GenerateRequest | None, context: Context
    ) -> AsyncIterator[gateway_pb2.GenerateEvent]:
        tenant = self._tenant(context)
        checked = _readable(request)
        asked = parse_asked(checked, self._spec)
        left_s = _left_s(context)
        if asked.named:
            fingerprint = checked.SerializeToString(deterministic=True)
            events = self._replays.follow(
                (tenant, asked.request_id), fingerprint, lambda: self._director.generate(asked, tenant, left_s)
            )
        else:
            events = self._director.generate(asked, tenant, left_s)
        async with aclosing(cast(Any, events)) as relayed:
            async for event in relayed:
                if event.HasField("done") and event.done.replayed:
                    self._metrics.replays.inc()
                yield event

    def _tenant(self, context: Context) -> str:
        try:
            return self._identities.tenant_of(context.invocation_metadata() or (), context.auth_context)
        except CallerUnknown as error:
            self._metrics.unauthenticated.labels(error.reason).inc()
            raise


def _left_s(context: Context) -> float | None:
    remaining = context.time_remaining()
    return None if remaining is None else remaining - RELAY_MARGIN_S


def _readable(request: M | None) -> M:
    if request is None:
        text = "is not a valid message; text must be UTF-8 (no lone surrogates)"
        raise RequestInvalid([Violation("request", text)])
    return request


def _lenient(message: type[M]) -> Callable[[bytes], M | None]:
    """A deserializer that lets the handler answer unreadable bytes with field violations."""

    def read(data: bytes) -> M | None:
        try:
            return message.FromString(data)
        except DecodeError:
            return None

    return read


def add_to_server(service: TextToImageService, server: grpc.aio.Server) -> None:
    """Register the service with lenient deserializers."""
    handlers: dict[str, Any] = {
        "Generate": grpc.unary_stream_rpc_method_handler(
            cast(Any, service.Generate),
            request_deserializer=_lenient(gateway_pb2.GenerateRequest),
            response_serializer=gateway_pb2.GenerateEvent.SerializeToString,
        ),
        "Explain": grpc.unary_unary_rpc_method_handler(
            cast(Any, service.Explain),
            request_deserializer=_lenient(gateway_pb2.ExplainRequest),
            response_serializer=gateway_pb2.ExplainResponse.SerializeToString,
        ),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
