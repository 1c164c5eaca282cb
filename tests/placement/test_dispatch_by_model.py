"""Dispatchers of two models over workers played at the wire: queues apart, one bound, orders to hold another model."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc
import pytest
from prometheus_client import CollectorRegistry

from played_workers import CAP, STEPS, World, turns, world
from t2i_api.gateway import GatewayPart
from t2i_gateway.by_model import ModelDispatchers
from t2i_gateway.dispatch import Dispatcher, ModelLate, QueuePlace
from t2i_gateway.errors import ModelGone, RequestRefused
from t2i_gateway.metrics import GatewayMetrics
from t2i_gateway.several_images import behind_siblings
from t2i_gateway.workers.model_orders import LOG_EVERY_S, ModelOrders
from t2i_policy.level import Level
from t2i_policy.outliers import HealthState
from t2i_policy.policies import PromptAware
from t2i_policy.pool_view import OtherQueues
from t2i_policy.request.admission import RefusedReason
from t2i_protos.v1 import level_pb2, worker_pb2

EXACT, TURBO = Level(0, STEPS), Level(0, 4, model="turbo")
MAX_QUEUED = 10


@dataclass
class TwoModels:
    """The first worker holds the pool's own model, the second one another."""

    played: World
    dispatchers: ModelDispatchers
    metrics: GatewayMetrics

    def ask(
        self, level: Level, tenant: str = "a", may_move: bool = False, within_s: float = 600.0
    ) -> "asyncio.Task[object]":
        deadline_s = asyncio.get_running_loop().time() + within_s
        place = QueuePlace(tenant, level, deadline_s, may_move=may_move)
        return asyncio.create_task(self.dispatchers.attempt(place))


async def hold(played: World, name: str, model: str) -> None:
    """Let a worker say that it holds this model, and wait until it counts as ready."""
    worker = played.workers[name]
    worker.load.model = model
    worker.described = worker_pb2.WorkerDescription(name=name, model=model)
    worker.say()
    connection = next(one for one in played.pool.connections if one.address == name)
    while not (connection.ready and connection.model == model):
        await turns()


@asynccontextmanager
async def two_models(gateways: int = 1) -> AsyncIterator[TwoModels]:
    async with world(alone=gateways == 1) as played:
        await hold(played, "second", "turbo")
        part, metrics = GatewayPart(replicas=gateways), GatewayMetrics(CollectorRegistry())
        by_model = {
            model: Dispatcher(PromptAware(), played.pool, part, metrics, model=model, name=model or "own")
            for model in ("", "turbo")
        }
        yield TwoModels(played, ModelDispatchers(by_model, played.pool.others), metrics)


async def end(*asked: "asyncio.Task[object]") -> None:
    for task in asked:
        task.cancel()
    await asyncio.gather(*asked, return_exceptions=True)


async def test_each_model_has_its_workers_and_its_queue() -> None:
    """What waits for the one does not lengthen the wait for the other."""
    async with two_models() as pool:
        own = [pool.ask(EXACT) for _ in range(CAP + 3)]
        await turns()
        view = pool.dispatchers.view()
        assert [worker.name for worker in view.of_model("turbo").workers] == ["second"]
        assert (view.of_model("").queued, view.of_model("turbo").queued, view.queued) == (3, 0, 3)
        assert view.of_model("").queue_wait_s() > 0
        assert view.of_model("turbo").queue_wait_s() == 0
        turbo = pool.ask(TURBO)
        await turns()
        assert turbo.result().connection.name == "second"  # type: ignore[attr-defined]
        await end(*own, turbo)


async def test_bound_on_the_queue_is_on_all_that_wait() -> None:
    async with two_models() as pool:
        own = [pool.ask(EXACT) for _ in range(CAP + 7)]
        await turns()
        assert pool.dispatchers.queue_room("turbo", "b", MAX_QUEUED) == MAX_QUEUED - 7
        assert pool.dispatchers.queue_room("", "a", MAX_QUEUED) <= MAX_QUEUED
        await end(*own)


async def test_images_of_a_request_stand_before_each_other_by_model() -> None:
    async with two_models() as pool:
        view = behind_siblings(pool.dispatchers.view(), [EXACT, TURBO, TURBO], 1.0)
        own, turbo = view.of_model(""), view.of_model("turbo")
        assert (own.queued, own.queued_steps, turbo.queued, turbo.queued_steps) == (1, STEPS, 2, 8)


async def test_other_gateways_tell_what_waits_for_which_model() -> None:
    """Their requests a second are those of a gateway, and count once."""
    async with two_models(gateways=2) as pool:
        told = []
        for level in (EXACT, TURBO):
            request = worker_pb2.WorkerGenerateRequest(level=level_pb2.Level(model=level.model))
            pool.dispatchers.tell_others(request, 2.0)
            other = worker_pb2.GatewayQueue(gateway="other", requests=3, steps=60, rate_rps=6.0, model=level.model)
            if level is EXACT:
                other.requests, other.steps = 5, 100
            told += [request.gateway_queue, other]
        assert [one.model for one in told] == ["", "", "turbo", "turbo"]
        pool.played.pool.others.take_in(worker_pb2.WorkerLoad(gateway_queues=told))
        view = pool.dispatchers.view()
        assert view.of_model("").others == OtherQueues(5, 100, 1, 6.0)
        assert view.of_model("turbo").others == OtherQueues(3, 60, 1, 6.0)
        assert pool.dispatchers.demand_factor(2.0) == 4.0


async def test_request_that_may_move_does_not_wait_for_a_model_without_workers() -> None:
    """One that may not waits on, for whoever loads the model again."""
    async with two_models() as pool:
        full = [pool.ask(TURBO) for _ in range(CAP)]
        moving, staying = pool.ask(TURBO, may_move=True), pool.ask(TURBO)
        await turns()
        second = pool.played.workers["second"]
        second.load.ready = False
        second.say()
        await turns()
        assert isinstance(moving.exception(), ModelGone)
        assert not staying.done()
        assert isinstance((await asyncio.gather(pool.ask(TURBO, may_move=True), return_exceptions=True))[0], ModelGone)
        await end(*full, staying)


@pytest.mark.parametrize("free", [True, False], ids=["at its turn", "while it waits"])
async def test_request_that_may_move_is_told_nothing_where_its_model_would_be_late(free: bool) -> None:
    """Its refusal is not counted, as another model may serve it. One that may not is refused as ever."""
    async with two_models() as pool:
        busy = [] if free else [pool.ask(TURBO) for _ in range(CAP)]
        await turns()
        late = [pool.ask(TURBO, may_move=may_move, within_s=1e-6) for may_move in (True, False)]  # at once
        moving, staying = await asyncio.gather(*late, return_exceptions=True)
        assert isinstance(moving, ModelLate)
        assert isinstance(staying, RequestRefused)
        assert moving.late.reason is staying.refused.reason is RefusedReason.OVERLOADED
        counted = pool.metrics.refusals.labels(RefusedReason.OVERLOADED)._value.get()
        assert counted == 1
        await end(*busy)


async def test_worker_that_loads_another_model_is_not_judged_by_its_silence() -> None:
    """It counts for neither model then. Once it is ready it is described anew."""
    async with two_models() as pool:
        second, connection = pool.played.workers["second"], pool.played.pool.connections[1]
        asked = second.asked
        second.load.model, second.load.ready = "", False
        second.say()
        await turns()
        assert connection.is_reloading
        second.frozen = True
        await pool.played.pass_s(20.0)
        assert (connection.state, pool.played.ejections) == (HealthState.GOOD, [])
        second.frozen = False
        second.load.ready = True
        await hold(pool.played, "second", "")
        assert second.asked > asked
        assert len(pool.dispatchers.view().of_model("").ready) == 2


async def test_worker_is_told_once_to_hold_the_model_of_its_place() -> None:
    """Once for each revision, and again over a new connection."""
    async with two_models() as pool:
        played, revision = pool.played, 7
        first = played.first
        orders = ModelOrders(played.pool, lambda: revision, clock=lambda: played.now_s)
        played.pool.assign({"first": TURBO, "second": TURBO})
        await orders.look()
        await orders.look()
        assert (first.orders, played.workers["second"].orders) == ([("turbo", 7)], [])
        revision = 8
        await orders.look()
        assert first.orders == [("turbo", 7), ("turbo", 8)]
        played.connection.renew()
        first.say()
        await turns()
        await orders.look()
        assert first.orders[2:] == [("turbo", 8)]
        await hold(played, "first", "turbo")
        await orders.look()
        assert len(first.orders) == 3


@pytest.mark.parametrize("code", [grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.FAILED_PRECONDITION])
async def test_refused_order_is_logged_once_a_minute(code: grpc.StatusCode, caplog: pytest.LogCaptureFixture) -> None:
    async with two_models() as pool:
        played, revision = pool.played, 1
        played.first.refuses = code
        orders = ModelOrders(played.pool, lambda: revision, clock=lambda: played.now_s)
        played.pool.assign({"first": TURBO})
        for _ in range(3):
            await orders.look()
            revision += 1
        assert len(played.first.orders) == 3
        assert caplog.text.count(f"does not take the order to hold the model turbo: {code.name}") == 1
        played.now_s += LOG_EVERY_S
        await orders.look()
        assert caplog.text.count(code.name) == 2


async def test_order_that_did_not_arrive_is_given_again() -> None:
    async with two_models() as pool:
        played = pool.played
        played.first.refuses = grpc.StatusCode.UNAVAILABLE
        orders = ModelOrders(played.pool, lambda: 1, clock=lambda: played.now_s)
        played.pool.assign({"first": TURBO})
        await orders.look()
        played.first.refuses = None
        await orders.look()
        await orders.look()
        assert len(played.first.orders) == 2
