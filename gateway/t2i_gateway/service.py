"""The gateway's gRPC surface: identity and checks in, events out, errors as statuses. Decides nothing."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from t2i_api.pool import PoolSpec
from t2i_gateway.director import Director
from t2i_gateway.errors import GatewayError, RequestInvalid
from t2i_gateway.idempotency import IdempotentRuns
from t2i_gateway.identity import Identities
from t2i_gateway.messages import Events
from t2i_gateway.metrics import GatewayMetrics
from t2i_gateway.request import parse_request
from t2i_gateway.status import to_status
from t2i_protos.v1 import gateway_pb2
from t2i_runtime.errors import CallerUnknown, Violation

Context = grpc.aio.ServicerContext[Any, Any]
SERVICE = gateway_pb2.DESCRIPTOR.services_by_name["TextToImage"].full_name
M = TypeVar("M", bound=Message)
RELAY_MARGIN_S = 0.02  # of the client's time, for the last bytes on their way


class TextToImageService:
    """The service of gateway.proto."""

    def __init__(self, director: Director, spec: PoolSpec, metrics: GatewayMetrics, identities: Identities) -> None:
        self._director = director
        self._spec = spec
        self._metrics = metrics
        self._identities = identities
        self._runs = IdempotentRuns()

    async def Generate(self, message: gateway_pb2.GenerateRequest | None, context: Context) -> Events:
        """Draw one prompt; stream what happens to it."""
        async with self._outcome("Generate", context):
            tenant = self._tenant(context)
            async with aclosing(self._events(_readable(message), tenant, _left_s(context))) as events:
                async for event in events:
                    if event.done.replayed:
                        self._metrics.replays.inc()
                    yield event

    async def Explain(
        self, message: gateway_pb2.ExplainRequest | None, context: Context
    ) -> gateway_pb2.ExplainResponse:
        """Tell what would be decided for a prompt."""
        async with self._outcome("Explain", context):
            tenant = self._tenant(context)
            request = parse_request(_readable(message).request, self._spec)
            return await self._director.explain(request, tenant, _left_s(context))
        raise AssertionError("an error was answered")

    def _events(self, message: gateway_pb2.GenerateRequest, tenant: str, left_s: float | None) -> Events:
        request = parse_request(message, self._spec)
        if not request.named:
            return self._director.generate(request, tenant, left_s)
        fingerprint = message.SerializeToString(deterministic=True)
        return self._runs.follow(
            (tenant, request.request_id), fingerprint, lambda: self._director.generate(request, tenant, left_s)
        )

    @asynccontextmanager
    async def _outcome(self, method: str, context: Context) -> AsyncGenerator[None, None]:
        """Count the call by how it ends; answer an error with its status."""
        outcome = "CANCELLED"
        try:
            yield
            outcome = "OK"
        except (GatewayError, CallerUnknown) as error:
            status = to_status(error)
            outcome = status.code.name
            await context.abort_with_status(status)
        finally:
            self._metrics.requests.labels(method, outcome).inc()

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
            service.Generate,
            request_deserializer=_lenient(gateway_pb2.GenerateRequest),
            response_serializer=gateway_pb2.GenerateEvent.SerializeToString,
        ),
        "Explain": grpc.unary_unary_rpc_method_handler(
            service.Explain,
            request_deserializer=_lenient(gateway_pb2.ExplainRequest),
            response_serializer=gateway_pb2.ExplainResponse.SerializeToString,
        ),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
