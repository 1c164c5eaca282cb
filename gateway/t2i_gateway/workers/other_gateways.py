"""What the other gateways of the pool told of their queues, as workers pass it on with their loads.

Each of the pool's models has queues of its own, so each is told by itself. Requests a second are those of a gateway.
"""

import asyncio
import uuid
from typing import Any

from t2i_policy.pool_view import OtherQueues
from t2i_policy.queue import FairQueue
from t2i_policy.request.other_gateways import KEPT_S, ToldQueue, newest_told, other_queues
from t2i_protos.v1 import worker_pb2


class OtherGateways:
    """Used from one event loop. `name` is this gateway's own, made up anew at each start."""

    def __init__(self) -> None:
        self.name = uuid.uuid4().hex
        self._told: dict[str, tuple[ToldQueue, ...]] = {}  # by model

    def take_in(self, load: worker_pb2.WorkerLoad) -> None:
        """Keep what is newer than what was known, and nothing that is old."""
        now_s = asyncio.get_running_loop().time()
        for model in {queue.model for queue in load.gateway_queues}:
            told = [_told(queue, now_s) for queue in load.gateway_queues if queue.model == model]
            newest = newest_told((*self._told.get(model, ()), *told)).values()
            self._told[model] = tuple(one for one in newest if now_s - one.at_s <= KEPT_S)

    def queues(self, model: str) -> OtherQueues | None:
        """The sum of those for this model; None while nothing can be known."""
        return other_queues(self._told.get(model, ()), self.name, asyncio.get_running_loop().time())

    @property
    def rate_rps(self) -> float | None:
        """Requests a second that come to them in all; None while nothing can be known."""
        told = [one for queues in self._told.values() for one in queues]
        others = other_queues(told, self.name, asyncio.get_running_loop().time())
        return None if others is None else others.rate_rps

    def tell(
        self, request: worker_pb2.WorkerGenerateRequest, queue: FairQueue[Any], rate_rps: float, model: str = ""
    ) -> None:
        """Say with a request to a worker what waits here for its model, and how many requests a second come."""
        by_tenant = [worker_pb2.TenantSteps(tenant=key, steps=steps) for key, steps in queue.steps_by_tenant().items()]
        request.gateway_queue.CopyFrom(
            worker_pb2.GatewayQueue(
                gateway=self.name,
                requests=queue.count,
                steps=queue.steps,
                rate_rps=rate_rps,
                by_tenant=by_tenant,
                model=model,
            )
        )


def _told(queue: worker_pb2.GatewayQueue, now_s: float) -> ToldQueue:
    return ToldQueue(
        gateway=queue.gateway,
        at_s=now_s - queue.age_ms / 1e3,
        requests=queue.requests,
        steps=queue.steps,
        rate_rps=queue.rate_rps,
        by_tenant={told.tenant: told.steps for told in queue.by_tenant if told.steps},
    )
