"""What every door hands its requests to: their bytes are bounded, repeats of an id are joined, the director draws."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, aclosing, contextmanager

from t2i_api.pool import Pool
from t2i_gateway.director import Director
from t2i_gateway.events import Events, is_done
from t2i_gateway.held_requests import MAX_HELD_BYTES, HeldAnswer, HeldRequests, bytes_sent_by
from t2i_gateway.idempotency import IdempotentRuns
from t2i_gateway.metrics import GatewayMetrics
from t2i_gateway.model_names import ModelNames
from t2i_gateway.request import ImageRequest, parse_request
from t2i_gateway.status import SHOWN_ERRORS, ShownError, outcome_of
from t2i_protos.v1 import gateway_pb2
from t2i_runtime.errors import CallerUnknown


class Intake:
    """One for all doors of a gateway, so that an id means the same at each. Used from one event loop."""

    def __init__(
        self, director: Director, pool: Pool, metrics: GatewayMetrics, max_held_bytes: int = MAX_HELD_BYTES
    ) -> None:
        self._director = director
        self._spec = pool.spec
        self._names = ModelNames.of(pool)
        self._metrics = metrics
        self._runs = IdempotentRuns()
        self._held = HeldRequests(metrics, max_held_bytes)

    @property
    def held_bytes(self) -> int:
        """Of all requests that were taken and not yet answered, and of answers not yet read."""
        return self._held.now_bytes

    def held(self, size_bytes: int) -> AbstractContextManager[None]:
        """Within it a request of this size counts.

        Raises:
            RequestRefused: there is no room for it.
        """
        return self._held.held(size_bytes)

    def answer(self, cut: Callable[[], object]) -> AbstractContextManager[HeldAnswer]:
        """Within it what a client has not read of its answer counts. `cut` ends it when others need the room."""
        return self._held.answer(cut)

    async def generate(
        self, message: gateway_pb2.GenerateRequest, tenant: str, left_s: float | None, made_id: str = ""
    ) -> Events:
        """The director's events; `made_id` names a request that brought no id. A door holds the bytes that came.

        Raises:
            GatewayError: the request is wrong, was refused, or failed.
        """
        request = self._parse(message, made_id)
        with self.held(bytes_sent_by(message)):
            async with aclosing(self._events(message, request, tenant, left_s)) as events:
                async for event in events:
                    if is_done(event) and event.done.replayed:
                        self._metrics.replays.inc()
                    yield event

    async def explain(
        self, message: gateway_pb2.GenerateRequest, tenant: str, left_s: float | None
    ) -> gateway_pb2.ExplainResponse:
        """What would be decided for a request.

        Raises:
            GatewayError: the request is wrong.
        """
        with self.held(message.ByteSize()):
            return await self._director.explain(self._parse(message), tenant, left_s)

    def _parse(self, message: gateway_pb2.GenerateRequest, made_id: str = "") -> ImageRequest:
        return parse_request(message, self._spec, made_id, self._names.demanded(message.model))

    def _events(
        self, message: gateway_pb2.GenerateRequest, request: ImageRequest, tenant: str, left_s: float | None
    ) -> Events:
        if not request.named:
            return self._director.generate(request, tenant, left_s)
        fingerprint = hashlib.sha256(message.SerializeToString(deterministic=True)).digest()
        return self._runs.follow(
            (tenant, request.request_id), fingerprint, lambda: self._director.generate(request, tenant, left_s)
        )


class Ending:
    """How a call ends. Whatever is no error of ours, such as a client that left, is CANCELLED."""

    def __init__(self, metrics: GatewayMetrics) -> None:
        self._metrics = metrics
        self.code = "CANCELLED"

    def failed(self, error: ShownError) -> None:
        self.code = outcome_of(error).grpc_name
        if isinstance(error, CallerUnknown):
            self._metrics.unauthenticated.labels(error.reason).inc()


@contextmanager
def counted(metrics: GatewayMetrics, method: str) -> Iterator[Ending]:
    """Count a call by how it ends. An error that is answered inside must be told to the `Ending`."""
    ending = Ending(metrics)
    try:
        yield ending
        ending.code = "OK" if ending.code == "CANCELLED" else ending.code
    except SHOWN_ERRORS as error:
        ending.failed(error)
        raise
    finally:
        metrics.requests.labels(method, ending.code).inc()
