"""The lease is kept apart from the work: work that takes the loop for itself must not lose it, a stuck loop must."""

import asyncio
import time

import pytest

from operator_world import World, operator_settings, running_operator
from t2i_operator import leadership
from t2i_operator.leadership import Pulse

RENEWALS, BUSY_S = 5, 40.0


async def test_busy_loop_keeps_the_lease(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator's loop does nothing but compute, and meanwhile the lease is renewed as ever."""
    monkeypatch.setattr(leadership, "RETRY_S", 0.1)
    async with running_operator(operator_settings(world.server, world.namespace)) as operator:
        await world.create_ready()
        end_s = time.monotonic() + BUSY_S
        confirmed, held = set(), []
        while len(confirmed) <= RENEWALS and time.monotonic() < end_s:
            # what a loop with a thousand pools at once looks like to an answer that waits
            confirmed.add(operator.leadership._confirmed_s)
            held.append(operator.leadership.is_held)
            sum(range(20_000))
        assert len(confirmed) > RENEWALS
        assert all(held)


async def test_stuck_loop_gives_the_lease_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop that never comes round does no work any more: another operator may, before anybody restarts this one."""
    monkeypatch.setattr(leadership, "RETRY_S", 0.1)
    async with running_operator(operator_settings(world.server, world.namespace)) as operator:
        await world.create_ready()
        monkeypatch.setattr(leadership, "STUCK_S", 0.5)
        monkeypatch.setattr(leadership, "RENEW_LIMIT_S", 1.0)
        end_s = time.monotonic() + 30.0
        while operator.leadership.is_held and time.monotonic() < end_s:
            sum(range(100_000))  # the loop is stuck in here
        assert not operator.leadership.is_held
        await world.wait("lead again", lambda: asyncio.sleep(0, operator.leadership.is_held), bool)


async def test_pulse_counts_from_the_last_answer() -> None:
    """Asked once at a time; the answer comes when the loop comes round."""
    now_s = 100.0
    pulse = Pulse(asyncio.get_running_loop(), lambda: now_s)
    assert pulse.beat()
    now_s += leadership.STUCK_S
    assert not pulse.beat()
    await asyncio.sleep(0)
    assert pulse.beat()
