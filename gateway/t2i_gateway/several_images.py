"""Several images of one prompt: each is a request of its own, and all are one answer."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace

from t2i_gateway.events import Events, ToldEvent
from t2i_policy.image_size import counted_steps
from t2i_policy.level import Level
from t2i_policy.pool_view import PoolView, join_parts

Arrived = asyncio.Queue[ToldEvent | Exception | None]  # None: one of the streams has ended


def behind_siblings(view: PoolView, before: Sequence[Level], step_cost: float) -> PoolView:
    """The pool as one of several images sees it: its siblings are admitted, but not queued yet.

    `before`: the siblings' levels. Their size is that of the image.
    """
    if not before:
        return view
    if view.parts:
        own = {model: [level for level in before if level.model == model] for model in view.parts}
        return join_parts({model: behind_siblings(part, own[model], step_cost) for model, part in view.parts.items()})
    steps = sum(counted_steps(level.cost, step_cost) for level in before)
    ahead_steps = None if view.ahead_steps is None else view.ahead_steps + steps
    return replace(
        view, queued=view.queued + len(before), queued_steps=view.queued_steps + steps, ahead_steps=ahead_steps
    )


async def merge_events(streams: Sequence[Events]) -> Events:
    """Events of all streams as they come, each with the number of its stream. No stream runs ahead of a slow reader.

    Raises:
        Exception: the first that any stream raised; the others are closed.
    """
    arrived = Arrived(maxsize=len(streams))
    tasks = [asyncio.create_task(_forward(index, stream, arrived)) for index, stream in enumerate(streams)]
    left = len(streams)
    try:
        while left:
            came = await arrived.get()
            if isinstance(came, Exception):
                raise came
            if came is None:
                left -= 1
            else:
                yield came
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _forward(index: int, stream: Events, arrived: Arrived) -> None:
    try:
        async with aclosing(stream) as events:
            async for event in events:
                event.image_index = index
                await arrived.put(event)
    except Exception as error:  # noqa: BLE001 - the reader raises it
        await arrived.put(error)
    else:
        await arrived.put(None)
