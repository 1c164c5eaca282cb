"""Who waits longest for a slot: not who came last, but whose deadline is the furthest away."""

import asyncio

from prometheus_client import CollectorRegistry

from played_workers import CAP, STEPS, turns, world
from t2i_api.gateway import GatewayPart
from t2i_gateway.dispatch import Dispatcher, QueuePlace
from t2i_gateway.metrics import GatewayMetrics
from t2i_policy.level import Level
from t2i_policy.policies import PromptAware


async def test_nearest_deadline_of_a_tenant_is_first() -> None:
    """Whatever the order in which they came."""
    async with world() as played:
        dispatcher = Dispatcher(
            PromptAware(), played.pool, GatewayPart(replicas=1), GatewayMetrics(CollectorRegistry())
        )
        held = [connection.take_slot(STEPS) for connection in played.pool.connections for _ in range(CAP)]
        done: list[int] = []

        async def ask(left_s: int) -> None:
            now_s = asyncio.get_running_loop().time()
            attempt = await dispatcher.attempt(QueuePlace("tenant", Level(0, STEPS), now_s + left_s))
            done.append(left_s)
            attempt.end()

        waiting = [asyncio.create_task(ask(left_s)) for left_s in (500, 300, 100, 400, 200)]
        await turns()
        assert not done
        played.connection.leave_slot(held[0])
        dispatcher.pump()
        await asyncio.gather(*waiting)
        assert done == [100, 200, 300, 400, 500]
