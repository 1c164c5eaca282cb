"""Slots that a gateway leaves to others: as many as they bring more claim, and each for a moment only."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from prometheus_client import CollectorRegistry

from played_workers import CAP, STEPS, World, turns, world
from t2i_api.gateway import GatewayPart
from t2i_gateway.attempt import Attempt
from t2i_gateway.dispatch import Dispatcher, QueuePlace
from t2i_gateway.metrics import GatewayMetrics
from t2i_policy.level import Level
from t2i_policy.policies import PromptAware
from t2i_policy.pool_view import OtherQueues, TenantSteps
from t2i_policy.queue import FairQueue, WaitingRequest, tenant_key
from t2i_policy.request.other_gateways import KEPT_S
from t2i_policy.slot_turns import LEFT_FOR_S, SlotTurns
from t2i_protos.v1 import worker_pb2

A, B = tenant_key("a"), tenant_key("b")
TICK_S = 0.01
SLOTS = 2 * CAP


def turns_of(steps: Mapping[str, int], weights: Mapping[str, float] | None = None) -> SlotTurns:
    """Those of a gateway where so much of each tenant waits."""
    queue = FairQueue[WaitingRequest](weights or {})
    for number, (tenant, waiting) in enumerate(steps.items()):
        queue.add(WaitingRequest(tenant=tenant, deadline_s=1.0, number=number, steps=waiting))
    return SlotTurns(queue)


def others(*by_tenant: TenantSteps) -> OtherQueues:
    return OtherQueues(len(by_tenant), sum(sum(steps.values()) for steps in by_tenant), len(by_tenant), 0.0, by_tenant)


SHARES = {
    "the other has the second tenant and half of the first": ({"a": 50}, {}, [{A: 50, B: 10}], 1 / 3),
    "weights count": ({"a": 50}, {"b": 3.0}, [{A: 50, B: 10}], 1 / 7),
    "a tenant at each": ({"a": 50}, {}, [{B: 10}], 1.0),
    "it has the most itself": ({"a": 50, "b": 10}, {}, [{A: 50}, {A: 900}], 1.0),
    "one tenant": ({"a": 1}, {}, [{A: 5000}], 1.0),
    "nobody waits elsewhere": ({"a": 50, "b": 10}, {}, [], 1.0),
}


@pytest.mark.parametrize("case", SHARES)
def test_gateway_takes_its_claim_over_the_largest(case: str) -> None:
    """Of slots that fall free one by one, and that others take where it leaves them."""
    steps, weights, waiting, share = SHARES[case]
    turns = turns_of(steps, weights)
    taken = 0
    for now_s in range(420):
        turns.look(0)
        taken += turns.may_take(others(*waiting), 1, float(now_s))
    assert taken == pytest.approx(420 * share, abs=1)


def test_wait_counts_the_claims_of_all() -> None:
    """A tenant alone at its gateway waits as behind one other queue, the flood behind what its gateways get."""
    known = others({A: 500})
    calm = turns_of({"a": 500, "b": 20}).sharing(known, "b")
    assert calm is not None
    assert calm.gateways == pytest.approx(1 / 3)
    flood = turns_of({"a": 500}).sharing(others({A: 500, B: 20}), "a")
    assert flood is not None
    assert flood.gateways == pytest.approx(3)
    comes = turns_of({"a": 500}).sharing(known, "b")
    assert comes is not None
    assert comes.gateways == pytest.approx(1 / 3)
    assert turns_of({"a": 500}).sharing(known, "a") == known
    assert turns_of({"a": 500}).sharing(None, "b") is None


@dataclass
class Busy:
    """A gateway's dispatcher with requests of tenant a in its queue, and two full workers. The test moves the time."""

    played: World
    dispatcher: Dispatcher
    now_s: float = 100.0
    asked: list[asyncio.Task[Attempt]] = field(default_factory=list)

    def hears(self, waiting: TenantSteps) -> None:
        """Of one other gateway, once."""
        own = worker_pb2.WorkerGenerateRequest()
        self.dispatcher.tell_others(own, 1.0)
        by_tenant = [worker_pb2.TenantSteps(tenant=tenant, steps=steps) for tenant, steps in waiting.items()]
        other = worker_pb2.GatewayQueue(gateway="other", requests=5, steps=sum(waiting.values()), by_tenant=by_tenant)
        load = worker_pb2.WorkerLoad(gateway_queues=[own.gateway_queue, other])
        self.played.pool.others.take_in(load)

    async def pass_s(self, seconds: float) -> None:
        self.now_s += seconds
        await turns()

    async def slot_is_free_s(self, slot: int) -> float:
        """How long a slot that falls free stays so."""
        since_s, waiting = self.now_s, self.dispatcher.num_queued
        connection = self.played.pool.connections[slot // CAP]
        connection.leave_slot(next(iter(connection.slots)))
        self.dispatcher.pump()
        await turns()
        while self.dispatcher.num_queued == waiting and self.now_s < since_s + 1:
            await self.pass_s(TICK_S)
        return round(self.now_s - since_s, 6)


@asynccontextmanager
async def busy(monkeypatch: pytest.MonkeyPatch, gateways: int = 2, requests: int = SLOTS) -> AsyncIterator[Busy]:
    async with world(alone=False) as played:
        part, metrics = GatewayPart(replicas=gateways), GatewayMetrics(CollectorRegistry())
        gateway = Busy(played, Dispatcher(PromptAware(), played.pool, part, metrics))
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: gateway.now_s)
        for connection in played.pool.connections:
            for _ in range(CAP):
                connection.take_slot(STEPS)
        place = QueuePlace("a", Level(0, STEPS), gateway.now_s + 60)
        gateway.asked = [asyncio.create_task(gateway.dispatcher.attempt(place)) for _ in range(requests)]
        await turns()
        yield gateway
        for task in gateway.asked:
            task.cancel()
        await asyncio.gather(*gateway.asked, return_exceptions=True)


async def test_gateway_that_died_with_its_queue_holds_each_slot_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes none of the slots that it is left. Nothing happens here but that time passes."""
    async with busy(monkeypatch) as gateway:
        gateway.hears({A: SLOTS * STEPS, B: STEPS})
        free_s = [await gateway.slot_is_free_s(slot) for slot in range(SLOTS - 2)]
        assert set(free_s) == {0.0, LEFT_FOR_S}
        assert 1 <= free_s.count(0.0) <= 2  # about a quarter is its own
        gateway.now_s += KEPT_S
        assert [await gateway.slot_is_free_s(slot) for slot in range(SLOTS - 2, SLOTS)] == [0.0, 0.0]


async def test_wait_of_a_tenant_is_by_the_claims(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other gateway gets three slots for each of this one's, though it is only one."""
    async with busy(monkeypatch) as gateway:
        gateway.hears({A: SLOTS * STEPS, B: STEPS})
        by_chance, by_claims = gateway.dispatcher.view(), gateway.dispatcher.view("a")
        assert by_claims.queue_wait_s() == pytest.approx(2 * by_chance.queue_wait_s())


async def test_several_slots_are_left_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their moments pass together, and one timer is enough."""
    async with busy(monkeypatch) as gateway:
        gateway.hears({A: 50 * SLOTS * STEPS, B: STEPS})
        first = gateway.played.connection
        for slot in list(first.slots):
            first.leave_slot(slot)
        gateway.dispatcher.pump()
        await gateway.pass_s(LEFT_FOR_S - TICK_S)
        assert gateway.dispatcher.num_queued == SLOTS
        assert gateway.dispatcher.view("a").queue_wait_s() > 0  # who asks now does not get them either
        await gateway.pass_s(TICK_S)
        assert gateway.dispatcher.num_queued == SLOTS - CAP


async def test_slot_that_another_took_is_not_left_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the next one is its own sooner."""
    async with busy(monkeypatch) as gateway:
        gateway.hears({A: SLOTS * STEPS, B: STEPS})
        first = gateway.played.connection
        for _ in range(2):
            first.leave_slot(next(iter(first.slots)))
            gateway.dispatcher.pump()
            await turns()
            first.take_slot(STEPS)  # stands for the other gateway's request
            gateway.dispatcher.pump()
        assert gateway.dispatcher.num_queued == SLOTS
        assert await gateway.slot_is_free_s(0) == 0.0


ALONE = {
    "one tenant": (2, {A: SLOTS * STEPS}),
    "one gateway": (1, {A: SLOTS * STEPS, B: STEPS}),
    "an older version, which does not tell by tenant": (2, {}),
}


@pytest.mark.parametrize("case", ALONE)
async def test_no_slot_is_left_without_need(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is taken as it falls free."""
    gateways, waiting = ALONE[case]
    async with busy(monkeypatch, gateways) as gateway:
        gateway.hears(waiting)
        assert [await gateway.slot_is_free_s(slot) for slot in range(SLOTS)] == [0.0] * SLOTS


async def test_no_timer_is_left_when_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one request is gone before the slot that it was denied may be taken."""
    async with busy(monkeypatch, requests=1) as gateway:
        gateway.hears({A: 50 * STEPS, B: STEPS})
        gateway.played.connection.leave_slot(next(iter(gateway.played.connection.slots)))
        gateway.dispatcher.pump()
        assert gateway.dispatcher._look_again is not None
        for task in gateway.asked:
            task.cancel()
        await turns()
        assert gateway.dispatcher._look_again is None
