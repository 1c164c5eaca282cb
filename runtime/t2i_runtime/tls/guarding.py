"""A guard before every method of a server: only a peer with the right name in its certificate is heard."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

from t2i_runtime.tls.names import has_name

Context = grpc.aio.ServicerContext[Any, Any]
Handler = Any  # grpc.RpcMethodHandler; it cannot be subscripted at run time
Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]


class OnlyFrom(grpc.aio.ServerInterceptor):
    """Refuses calls of peers whose certificate does not carry `name`, before a request is read."""

    def __init__(self, name: str) -> None:
        self._name = name

    async def intercept_service(self, continuation: Continuation, details: grpc.HandlerCallDetails) -> Handler | None:
        handler = await continuation(details)
        return None if handler is None else self._guarded(handler)

    def _guarded(self, handler: Handler) -> Handler:
        codecs = (handler.request_deserializer, handler.response_serializer)
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(self._call(handler.unary_unary), *codecs)
        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(self._stream(handler.unary_stream), *codecs)
        if handler.stream_stream is not None:
            return grpc.stream_stream_rpc_method_handler(self._stream(handler.stream_stream), *codecs)
        return grpc.stream_unary_rpc_method_handler(self._call(handler.stream_unary), *codecs)

    def _call(self, behaviour: Any) -> Any:
        async def guarded(request: Any, context: Context) -> Any:
            await self._check(context)
            return await behaviour(request, context)

        return guarded

    def _stream(self, behaviour: Any) -> Any:
        async def guarded(request: Any, context: Context) -> AsyncIterator[Any]:
            await self._check(context)
            async for answer in behaviour(request, context):
                yield answer

        return guarded

    async def _check(self, context: Context) -> None:
        if not has_name(context.auth_context(), self._name):
            text = f"only a peer whose certificate carries the name {self._name} may call here"
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, text)
