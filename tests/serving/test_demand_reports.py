"""What a gateway tells the operator of its demand, over the wire: what it counted, what its workers measured."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest

from small_pools import worker
from t2i_gateway.control import ControlService
from t2i_policy.planning.demand import Demand
from t2i_policy.pool_view import PoolView, WorkerView
from t2i_protos.v1 import control_pb2, control_pb2_grpc


class Counted:
    """A gateway's state: what planning and dispatch hold while requests come in."""

    def __init__(self) -> None:
        self.demand = Demand()
        self.view = PoolView((), 0, 0)
        self.left_out: dict[str, str] = {}
        self.models: dict[str, str] = {}
        self.plan = SimpleNamespace(revision=0)

    def count(self, prompt_class: str, times: int, at_s: float) -> None:
        """Requests of one class at one instant of the loop's clock."""
        for _ in range(times):
            self.demand = self.demand.counted(prompt_class, at_s)


@pytest.fixture
def state() -> Counted:
    """An idle gateway without workers."""
    return Counted()


@pytest.fixture
async def ask(state: Counted) -> AsyncIterator[Any]:
    """The operator's question, over gRPC."""
    dispatcher = SimpleNamespace(view=lambda: state.view)
    server = grpc.aio.server()
    embeddings = SimpleNamespace(trouble="the hub does not answer")
    neighbours = SimpleNamespace(store_trouble="the server runs in cluster mode")
    parts = SimpleNamespace(
        spec=SimpleNamespace(models=state.models),
        planning=state,
        dispatchers=dispatcher,
        embeddings=embeddings,
        neighbours=neighbours,
        workers=state,
    )
    service = ControlService(cast(Any, parts))
    control_pb2_grpc.add_ControlServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = control_pb2_grpc.ControlStub(channel)
        yield lambda: stub.GetDemand(control_pb2.GetDemandRequest(), timeout=60.0)
    await server.stop(None)


async def test_idle_gateway_reports_nothing(ask: Any) -> None:
    """No class, no measurement, no plan yet: and no error."""
    answer = await ask()
    assert (list(answer.demand), list(answer.measurements), answer.plan_revision) == ([], [], 0)


async def test_demand_is_reported_by_class(ask: Any, state: Counted) -> None:
    """Rates keep the proportion of what was counted, in the order of names."""
    now_s = asyncio.get_running_loop().time()
    state.count("none", 30, now_s)
    state.count("0.90", 10, now_s)
    rates = {one.prompt_class: one.rate_rps for one in (await ask()).demand}
    assert list(rates) == ["0.90", "none"]
    assert rates["none"] == pytest.approx(3 * rates["0.90"], rel=1e-6)


async def test_queue_and_plan_are_reported(ask: Any, state: Counted) -> None:
    """The operator sees which plan requests are decided by."""
    state.view = PoolView((worker("w0", running=2),), 7, 280)
    state.plan.revision = 12
    answer = await ask()
    assert (answer.queued, answer.in_flight, answer.plan_revision) == (7, state.view.in_flight, 12)


def of_group(name: str, group: str, ready: bool = True) -> WorkerView:
    """A worker of a group."""
    return WorkerView(name, ready, 0, 0, 4, (0.1, 0.15, 0.2, 0.25), 0.5, 0, group, None)


async def test_each_group_is_measured_by_a_ready_worker(ask: Any, state: Counted) -> None:
    """Milliseconds by batch size up to the cap; workers that are not ready say and count nothing."""
    state.view = PoolView((of_group("a-0", "a", False), of_group("a-1", "a"), of_group("b-0", "b", False)), 0, 0)
    (measured,) = (await ask()).measurements
    assert measured.group == "a"
    assert measured.ready_workers == 1
    assert list(measured.step_ms) == pytest.approx([100, 150, 200, 250])
    assert measured.fixed_ms == pytest.approx(500)


async def test_workers_of_several_models_are_told_apart(state: Counted, ask: Any) -> None:
    """Who holds which, ready or not, and what a step of each takes; in pools of one model nothing is said of it."""
    own = of_group("a-0", "a")
    few = replace(of_group("a-1", "a"), model="few", step_s=(0.02,), batch_cap=1)
    loading = replace(of_group("b-0", "b", False), model="few")
    state.view = PoolView((own, few, loading), 0, 0)
    assert not (await ask()).held_models
    state.models["few"] = "another"
    answer = await ask()
    assert [(one.worker, one.model, one.ready) for one in answer.held_models] == [
        ("a-0", "", True),
        ("a-1", "few", True),
        ("b-0", "few", False),
    ]
    assert [(one.group, one.model, one.ready_workers) for one in answer.measurements] == [("a", "", 1), ("a", "few", 1)]
    assert list(answer.measurements[1].step_ms) == [20.0]


async def test_missing_embedder_is_reported(ask: Any) -> None:
    """In the gateway's own words: the operator puts them into the pool's conditions."""
    assert (await ask()).embedder_trouble == "the hub does not answer"


async def test_store_that_does_not_serve_is_reported(ask: Any) -> None:
    """In the words of the store: the operator puts them into the pool's conditions."""
    assert (await ask()).store_trouble == "the server runs in cluster mode"


async def test_workers_that_are_left_out_are_reported(ask: Any, state: Counted) -> None:
    """By name, and why: the operator tells people which pod it is."""
    state.left_out = {"p-a-1": "Failing", "p-a-0": "SlowSteps"}
    left_out = [(one.worker, one.reason) for one in (await ask()).left_out]
    assert left_out == [("p-a-0", "SlowSteps"), ("p-a-1", "Failing")]
