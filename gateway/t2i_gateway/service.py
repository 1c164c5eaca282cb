"""The gateway's gRPC surface: identity and checks in, events out, errors as statuses. Decides nothing."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from t2i_gateway.errors import RequestInvalid
from t2i_gateway.events import Events, write_event
from t2i_gateway.identity import Identities
from t2i_gateway.intake import Intake, counted
from t2i_gateway.metrics import GatewayMetrics
from t2i_gateway.spans import door_span
from t2i_gateway.status import SHOWN_ERRORS, to_status
from t2i_protos.v1 import gateway_pb2
from t2i_runtime.errors import Violation
from t2i_runtime.tracing import set_code

Context = grpc.aio.ServicerContext[Any, Any]
SERVICE = gateway_pb2.DESCRIPTOR.services_by_name["TextToImage"].full_name
M = TypeVar("M", bound=Message)
RELAY_MARGIN_S = 0.02  # of the client's time, for the last bytes on their way


class TextToImageService:
    """The service of gateway.proto."""

    def __init__(self, intake: Intake, metrics: GatewayMetrics, identities: Identities) -> None:
        self._intake = intake
        self._metrics = metrics
        self._identities = identities

    async def Generate(self, message: gateway_pb2.GenerateRequest | None, context: Context) -> Events:
        """Draw one prompt; stream what happens to it."""
        async with self._answering("Generate", context):
            tenant, request = self._tenant(context), _readable(message)
            with self._intake.held(request.ByteSize()):
                async with aclosing(self._intake.generate(request, tenant, _left_s(context))) as events:
                    async for event in events:
                        yield event

    async def Explain(
        self, message: gateway_pb2.ExplainRequest | None, context: Context
    ) -> gateway_pb2.ExplainResponse:
        """Tell what would be decided for a prompt."""
        async with self._answering("Explain", context):
            tenant, request = self._tenant(context), _readable(message).request
            return await self._intake.explain(request, tenant, _left_s(context))
        raise AssertionError("an error was answered")

    @asynccontextmanager
    async def _answering(self, method: str, context: Context) -> AsyncGenerator[None, None]:
        """Count and trace the call by how it ends; answer an error with its status."""
        name, headers = f"{SERVICE}/{method}", context.invocation_metadata() or ()
        with door_span(name, headers, {"rpc.system.name": "grpc", "rpc.method": name}) as span:
            try:
                with counted(self._metrics, method) as ending:
                    yield
            except SHOWN_ERRORS as error:
                await context.abort_with_status(to_status(error))
            finally:
                set_code(span, ending.code)

    def _tenant(self, context: Context) -> str:
        return self._identities.tenant_of(context.invocation_metadata() or (), context.auth_context)


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
            response_serializer=write_event,
        ),
        "Explain": grpc.unary_unary_rpc_method_handler(
            service.Explain,
            request_deserializer=_lenient(gateway_pb2.ExplainRequest),
            response_serializer=gateway_pb2.ExplainResponse.SerializeToString,
        ),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
