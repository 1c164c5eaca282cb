"""What gateways told this worker of their queues, to be passed on to the others with its load."""

from collections.abc import Callable

from t2i_policy.queue import MAX_TOLD
from t2i_policy.request.other_gateways import KEPT_S
from t2i_protos.v1 import worker_pb2

MAX_GATEWAYS = 64
MAX_NAME = 64


class GatewayQueues:
    """`clock`: seconds that never go back."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._told: dict[str, tuple[float, worker_pb2.GatewayQueue]] = {}  # oldest first

    def take_in(self, request: worker_pb2.WorkerGenerateRequest) -> None:
        """Keep what came with a request, if it is a gateway's; an older one tells nothing."""
        queue = request.gateway_queue
        if not 0 < len(queue.gateway) <= MAX_NAME:
            return
        self._told.pop(queue.gateway, None)
        if len(self._told) >= MAX_GATEWAYS:
            del self._told[next(iter(self._told))]
        del queue.by_tenant[MAX_TOLD + 1 :]  # no gateway tells more: those, and the rest of its tenants as one
        self._told[queue.gateway] = (self._clock(), queue)

    def current(self) -> list[worker_pb2.GatewayQueue]:
        """What was told within KEPT_S, with its age."""
        now_s = self._clock()
        fresh = [(now_s - at_s, queue) for at_s, queue in self._told.values() if now_s - at_s <= KEPT_S]
        for age_s, queue in fresh:
            queue.age_ms = round(1e3 * age_s)
        return [queue for _, queue in fresh]
