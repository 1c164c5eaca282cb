"""A limit for an answer of the store: kept, but not spent by a stall of our own process."""

import asyncio
import time

import pytest

from t2i_cache.time_limit import within

LIMIT_S = 0.1


async def never(ended: list[str]) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        ended.append("work")


async def test_answer_that_came_during_a_stall_is_taken() -> None:
    """The loop stands still for longer than the limit; when it goes on, the answer lies ready."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[str] = loop.create_future()

    async def work() -> str:
        return await answer

    waiting = asyncio.create_task(within(LIMIT_S, work()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    loop.call_soon(time.sleep, 2 * LIMIT_S)
    loop.call_soon(loop.call_later, 0.0, answer.set_result, "latent")
    assert await waiting == "latent"


async def test_answer_that_does_not_come_costs_the_limit() -> None:
    """The work has ended by then, so that nothing of it goes on unseen."""
    ended: list[str] = []
    with pytest.raises(TimeoutError):
        await within(LIMIT_S, never(ended))
    assert ended == ["work"]


async def test_caller_that_leaves_takes_the_work_along() -> None:
    """A client's cancel is no timeout."""
    ended: list[str] = []
    waiting = asyncio.create_task(within(60.0, never(ended)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert ended == ["work"]


async def test_error_of_the_work_is_the_callers() -> None:
    """As it was raised."""

    async def fails() -> None:
        raise KeyError("latent")

    with pytest.raises(KeyError):
        await within(60.0, fails())
