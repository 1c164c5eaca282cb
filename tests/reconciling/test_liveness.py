"""Liveness: a reactor that hears nothing, or a look that never ends, is told to the kubelet; a quiet cluster is not."""

import asyncio
import urllib.error
import urllib.request
from dataclasses import replace

import pytest

from operator_world import World, operator_settings, running_operator
from t2i_operator import server
from t2i_operator.server import Operator
from t2i_testing_kit.kube.proxy import FaultProxy


async def livez(operator: Operator) -> tuple[int, str]:
    """Status and text of the probe."""

    url = f"http://127.0.0.1:{operator.probes.ports['health']}/livez"

    def ask() -> tuple[int, str]:
        try:
            with urllib.request.urlopen(url, timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    return await asyncio.to_thread(ask)


async def test_deaf_reactor_fails_liveness(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Watches are open and silent; our own status write does not come back as an event."""
    monkeypatch.setattr(server, "DEAF_S", 2.0)
    async with FaultProxy(world.server) as proxy:
        settings = replace(operator_settings(world.server, world.namespace, url=proxy.url), resync_s=2.0)
        async with running_operator(settings) as operator:
            await world.create_ready()
            await world.wait("200", lambda: livez(operator), lambda seen: seen == (200, "ok"))
            proxy.freeze_watches()
            await world.change({"workerGroups": [{"name": "a", "workers": 3}]})
            _, text = await world.wait("503", lambda: livez(operator), lambda seen: seen[0] == 503)
            assert "watches" in text


async def test_look_that_does_not_end_fails_liveness(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The API server takes its time for every answer, longer than a look may take."""
    monkeypatch.setattr(server, "WEDGED_S", 1.0)
    async with FaultProxy(world.server) as proxy:
        settings = operator_settings(world.server, world.namespace, url=proxy.url)
        async with running_operator(settings) as operator:
            await world.create_ready()
            proxy.read_delay_s = 5.0
            await world.call("DELETE", world.child_path("Service/p-gateway"))
            _, text = await world.wait("503", lambda: livez(operator), lambda seen: seen[0] == 503)
            assert "look" in text
            proxy.read_delay_s = 0.0
            await world.wait("200", lambda: livez(operator), lambda seen: seen[0] == 200)


async def test_quiet_cluster_is_well(world: World, operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing happens for longer than the limit, and that proves nothing."""
    monkeypatch.setattr(server, "DEAF_S", 0.5)
    await world.create_ready()
    age = operator.metrics.event_age
    await world.wait("silence", lambda: asyncio.sleep(0, age._value.get()), lambda now: now > 1.0)
    assert await livez(operator) == (200, "ok")
