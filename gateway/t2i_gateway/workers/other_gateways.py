"""What the other gateways of the pool told of their queues, as workers pass it on with their loads."""

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
        self._told: tuple[ToldQueue, ...] = ()

    def take_in(self, load: worker_pb2.WorkerLoad) -> None:
        """Keep what is newer than what was known, and nothing that is old."""
        now_s = asyncio.get_running_loop().time()
        newest = newest_told((*self._told, *(_told(queue, now_s) for queue in load.gateway_queues))).values()
        self._told = tuple(told for told in newest if now_s - told.at_s <= KEPT_S)

    @property
    def queues(self) -> OtherQueues | None:
        """Their sum; None while nothing can be known."""
        return other_queues(self._told, self.name, asyncio.get_running_loop().time())

    def tell(self, request: worker_pb2.WorkerGenerateRequest, queue: FairQueue[Any], rate_rps: float) -> None:
        """Say with a request to a worker what waits here, and how many requests a second come."""
        by_tenant = [worker_pb2.TenantSteps(tenant=key, steps=steps) for key, steps in queue.steps_by_tenant().items()]
        request.gateway_queue.CopyFrom(
            worker_pb2.GatewayQueue(
                gateway=self.name, requests=queue.count, steps=queue.steps, rate_rps=rate_rps, by_tenant=by_tenant
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
