"""The lease runs out in the middle of a pool's writes: from then on nothing is written until it is held again (O8)."""

import asyncio

import pytest

from operator_world import World, operator_settings, pool_document, running_operator
from t2i_operator import leadership
from t2i_testing_kit.kube.proxy import ApiFault, FaultProxy, Write

BEFORE = 4  # writes that get through


async def test_lease_lost_between_two_writes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next write is refused with 429 until the lease has run out; its repetition must not be made."""
    monkeypatch.setattr(leadership, "RENEW_LIMIT_S", 4.0)  # not lost before it is taken away
    monkeypatch.setattr(leadership, "RETRY_S", 0.2)
    async with FaultProxy(world.server) as proxy:
        settings = operator_settings(world.server, world.namespace, url=proxy.url)
        async with running_operator(settings) as operator:

            def choose(write: Write) -> ApiFault | None:
                if write.number <= BEFORE and write.attempt == 1:
                    return None
                proxy.lease_is_lost = True
                return ApiFault.TOO_MANY if operator.leadership.is_held else None

            proxy.choose = choose
            await world.create(pool_document())
            await world.wait("loss", lambda: asyncio.sleep(0, proxy.lease_is_lost), bool)
            leads = operator.metrics.leader
            await world.wait("no work", lambda: asyncio.sleep(0, leads._value.get()), lambda now: now == 0)
            assert len(proxy.record.writes) == BEFORE
            assert len(await world.children()) == BEFORE
            proxy.choose = lambda _: None
            proxy.lease_is_lost = False
            await world.wait("all children", world.children, lambda found: len(found) == 12)
            await world.until_condition("Progressing", "True")
