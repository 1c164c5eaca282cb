"""A request that starts from an image waits and holds its slot for the steps that its strength leaves."""

import asyncio

import pytest
from prometheus_client import CollectorRegistry

from played_workers import CAP, STEPS, turns, world
from t2i_api.gateway import GatewayPart
from t2i_gateway.dispatch import Dispatcher, QueuePlace
from t2i_gateway.metrics import GatewayMetrics
from t2i_policy.level import Level
from t2i_policy.policies import PromptAware
from t2i_runtime.input_images import InputImages

HALF = InputImages(init_image=b"a file", strength=0.5)


@pytest.mark.parametrize(
    ("images", "share"),
    [(HALF, 0.5), (InputImages(init_image=b"a file"), 1.0), (InputImages(reference_images=(b"a file",)), 1.0)],
)
def test_strength_alone_leaves_steps_out(images: InputImages, share: float) -> None:
    assert images.steps_share == share


async def test_half_the_strength_counts_as_half_the_steps() -> None:
    """In the queue and at the worker, times what a step of its size costs."""
    async with world() as played:
        dispatcher = Dispatcher(
            PromptAware(), played.pool, GatewayPart(replicas=1), GatewayMetrics(CollectorRegistry())
        )
        place = QueuePlace(
            "tenant", Level(0, STEPS), asyncio.get_running_loop().time() + 1000, step_cost=2.0, steps_share=0.5
        )
        first = await dispatcher.attempt(place)
        assert (first.slot.steps_left, first.slot.step_cost) == (STEPS // 2, 2.0)
        first.end()
        held = [connection.take_slot(STEPS) for connection in played.pool.connections for _ in range(CAP)]
        waiting = asyncio.create_task(dispatcher.attempt(place))
        await turns()
        assert dispatcher.view().queued_steps == STEPS  # half of them, each worth two
        for slot in held:
            for connection in played.pool.connections:
                connection.leave_slot(slot)
        dispatcher.pump()
        (await waiting).end()
