"""Latents that lie with some workers only: who waits for a holder, who is served without, and where each goes."""

import asyncio
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry

from played_workers import CAP, STEPS, World, world
from small_pools import EXACT, K20, RULES, SLO_S, STEP_S, STORED, N, asks
from t2i_api.gateway import GatewayPart
from t2i_gateway.attempt import Attempt
from t2i_gateway.dispatch import Dispatcher, QueuePlace
from t2i_gateway.metrics import GatewayMetrics
from t2i_policy.level import Level
from t2i_policy.policies import PromptAware
from t2i_policy.pool_view import TURN_MARGIN, PoolView, WorkerView
from t2i_policy.request.decide import Decided
from t2i_policy.request.latent_holders import HolderLine, choose_with_holders, reachable_steps
from t2i_policy.request.options import Neighbourhood
from t2i_policy.request.served import ServedReason

FIRST = frozenset({"w0"})
FIRST_HOLDER, MANY = frozenset({"first"}), 1000


def worker(name: str, running: int = 0, ready: bool = True) -> WorkerView:
    return WorkerView(name, ready, running, 0, 4, STEP_S, 0.0, 25 * running, "gpu")


def chosen(pool: PoolView, line: HolderLine, left_s: float = SLO_S) -> Decided:
    """Of a near-repeat, whose wanted level skips 25 of 50 steps."""
    arrival = asks(0.98)
    alone = Neighbourhood(0.98, frozenset())
    latent = RULES.decide(arrival, pool)
    without = RULES.decide(type(arrival)(arrival.limits, alone, arrival.left_s, arrival.draw), pool)
    assert latent.served.level.needs_latent
    assert not without.served.level.needs_latent
    return choose_with_holders(latent, without, pool, line, left_s)


CASES = {
    "its holder is free": ([0, 0, 0], HolderLine(FIRST), True),
    "its holder is busier than another, and as soon": ([1, 0, 0], HolderLine(FIRST), True),
    "its holder is so busy that another is sooner": ([2, 0, 0], HolderLine(FIRST), False),
    "many wait for its holder, another is free": ([4, 0, 0], HolderLine(FIRST, 500), False),
    "everybody is busy, few wait for its holder": ([4, 4, 4], HolderLine(FIRST, 25), True),
    "nobody has it": ([0, 0, 0], HolderLine(frozenset()), False),
    "its holder has gone": ([0, 0, 0], HolderLine(frozenset({"gone"})), False),
}


@pytest.mark.parametrize(("running", "line", "latent"), CASES.values(), ids=CASES.keys())
def test_earlier_image_decides_whether_to_wait_for_a_holder(running: list[int], line: HolderLine, latent: bool) -> None:
    """And a latent is promised only if a worker that holds it will take the request."""
    pool = PoolView(tuple(worker(f"w{number}", count) for number, count in enumerate(running)), 0, 0)
    decided = chosen(pool, line)
    assert decided.served.level.needs_latent is latent
    assert (decided.served.reason is ServedReason.LATENT_ELSEWHERE) is not latent
    assert decided.wanted.level.needs_latent  # demand is counted by what the prompt could have had


def test_worse_image_is_not_taken_for_being_earlier() -> None:
    """Under pressure a short schedule would come first, and lose more; it is taken if the latent comes too late."""
    pool = PoolView(tuple(worker(f"w{number}", 4) for number in range(3)), 0, 0)
    assert chosen(pool, HolderLine(FIRST, 25)).served.level.needs_latent
    assert not chosen(pool, HolderLine(FIRST, 25), left_s=11.0).served.level.needs_latent


def test_estimate_is_that_of_the_holders() -> None:
    """Admission goes by it: other workers' free slots are of no use to this request."""
    pool = PoolView((worker("w0", 4), worker("w1", 3), worker("w2", 3)), 0, 0)
    decided = chosen(pool, HolderLine(FIRST))
    assert decided.served.level.needs_latent
    assert decided.served.estimated_s > pool.best_finish_s(decided.served.level.steps_run)


def test_wait_before_a_holder_counts_every_gateway() -> None:
    """Each of them sends requests to the holder, so the line before it is as long in all."""
    workers = tuple(worker(f"w{number}", 4) for number in range(3))
    alone, shared = (chosen(PoolView(workers, 0, 0, None, gateways), HolderLine(FIRST, 25)) for gateways in (1, 2))
    line_s = 25 / workers[0].steps_per_s
    assert shared.served.estimated_s - alone.served.estimated_s == pytest.approx((2 * TURN_MARGIN - 1) * line_s)


def test_waiting_for_a_holder_is_no_sooner_than_waiting_for_anybody() -> None:
    """The queue before the pool is before the holder too: admission must not take what will expire."""
    workers = tuple(worker(f"w{number}", 4) for number in range(3))
    pool = PoolView(workers, 30, 600)
    served = chosen(pool, HolderLine(FIRST), left_s=1e9).served
    assert served.estimated_s >= pool.queue_wait_s() + pool.best_finish_s(served.level.steps_run)


def test_only_steps_of_ready_workers_are_offered() -> None:
    """A latent on a worker that is away is no choice."""
    holdings = {20: FIRST, 10: frozenset({"w0", "w1"}), 5: frozenset({"w1"})}
    assert reachable_steps(holdings, [worker("w0", ready=False), worker("w1")]) == {10, 5}
    assert {5, 10, 20} <= STORED


@pytest.fixture
def metrics() -> GatewayMetrics:
    return GatewayMetrics(CollectorRegistry())


def place(holders: set[str] | None, level: Level = K20) -> QueuePlace:
    return QueuePlace("t", level, 1e9, holders=None if holders is None else lambda: frozenset(holders))


def dispatcher_of(played: World, metrics: GatewayMetrics, gateways: int = 1) -> Dispatcher:
    return Dispatcher(PromptAware(), played.pool, GatewayPart(replicas=gateways), metrics)


async def asking(dispatcher: Dispatcher, *places: QueuePlace) -> list["asyncio.Task[Attempt]"]:
    """Requests that have come to wait or to a worker, in this order."""
    tasks = [asyncio.create_task(dispatcher.attempt(one)) for one in places]
    await settle()
    return tasks


async def settle() -> None:
    """Every callback that is due has run."""
    for _ in range(5):
        await asyncio.sleep(0)


async def leave(tasks: list["asyncio.Task[Attempt]"]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_request_waits_for_a_holder_of_its_latent(metrics: GatewayMetrics) -> None:
    """While another worker is free; who needs no latent passes it, and its slot is the holder's next one."""
    async with world() as played:
        dispatcher = dispatcher_of(played, metrics)
        *filling, waiting, passing = await asking(
            dispatcher, *[place({"first"})] * CAP, place({"first"}), place(None, EXACT)
        )
        attempts = [task.result() for task in (*filling, passing)]
        assert [attempt.connection.name for attempt in attempts] == ["first"] * CAP + ["second"]
        assert not waiting.done()
        assert dispatcher.holder_line(FIRST_HOLDER, MANY) == HolderLine(FIRST_HOLDER, K20.steps_run)
        attempts[0].end()
        await settle()
        assert waiting.result().connection.name == "first"
        assert dispatcher.num_queued == 0
        assert dispatcher.holder_line(FIRST_HOLDER, MANY) == HolderLine(FIRST_HOLDER, 0)


async def test_request_goes_to_who_holds_its_latent_by_then(metrics: GatewayMetrics) -> None:
    """A copy that was drawn meanwhile serves as well; with no holder left, any worker does."""
    async with world() as played:
        dispatcher = dispatcher_of(played, metrics)
        holders = {"first"}
        *_, one, two = await asking(dispatcher, *[place(holders)] * (CAP + 2))
        assert not one.done()
        holders.add("second")
        dispatcher.pump()
        await settle()
        assert [task.result().connection.name for task in (one, two)] == ["second"] * 2
        (gone,) = await asking(dispatcher, place(set()))
        assert gone.result().connection.name == "second"


@pytest.mark.parametrize(
    ("left", "goes_to"), [({"second"}, "first"), ({"first", "second"}, "second"), ({"first"}, "second")]
)
async def test_worker_that_was_too_slow_is_better_than_none(
    metrics: GatewayMetrics, left: set[str], goes_to: str
) -> None:
    """A request moved away from it. It may come back when all others were too slow as well; else another draws it."""
    async with world() as played:
        dispatcher = dispatcher_of(played, metrics)
        played.connection.take_slot(STEPS)  # so the second is the better choice
        (request,) = await asking(dispatcher, replace(place(None, EXACT), left=frozenset(left)))
        assert request.result().connection.name == goes_to


async def test_waiting_for_a_holder_makes_no_queue_for_others(metrics: GatewayMetrics) -> None:
    """A request that any worker can serve finds the free one free; the operator hears of all that wait."""
    async with world() as played:
        dispatcher = dispatcher_of(played, metrics)
        tasks = await asking(dispatcher, *[place({"first"})] * (CAP + 3))
        view = dispatcher.view("other")
        assert dispatcher.num_queued == view.queued == 3
        assert view.queue_wait_s() == dispatcher.view().queue_wait_s() == 0.0
        assert view.backlog_s() > 0
        await leave(tasks)


async def test_who_waits_for_a_holder_waits_in_every_gateway(metrics: GatewayMetrics) -> None:
    """Two gateways share the pool: the other is taken to hold as much, in the backlog and before a holder."""
    async with world() as played:
        one, two = dispatcher_of(played, metrics), dispatcher_of(played, metrics, gateways=2)
        tasks = await asking(one, *[place({"first"})] * (CAP + 3))
        alone = one.view()
        waiting = await asking(two, *[place({"first"})] * 3)
        shared = two.view()
        assert (shared.queued, shared.queued_in_all, alone.queued_in_all) == (3, 6, 3)
        owed = shared.owed_steps / shared.steps_per_s
        assert shared.backlog_s() - owed == pytest.approx(2 * (alone.backlog_s() - owed))
        await leave([*tasks, *waiting])
        assert one.num_queued == two.num_queued == 0


async def test_full_queue_takes_nobody_who_waits_for_a_holder(metrics: GatewayMetrics) -> None:
    """A free worker keeps admission open, so this is what bounds the line before a busy holder."""
    async with world() as played:
        dispatcher = dispatcher_of(played, metrics)
        tasks = await asking(dispatcher, *[place({"first"})] * (CAP + 3))
        assert dispatcher.holder_line(FIRST_HOLDER, 4).holders == FIRST_HOLDER
        assert dispatcher.holder_line(FIRST_HOLDER, 3).holders == frozenset()
        assert dispatcher.holder_line(frozenset({"second"}), 3).holders == {"second"}  # has a free slot: no wait
        await leave(tasks)


@pytest.mark.parametrize("how", ["cancelled", "deadline"])
async def test_request_that_leaves_gives_its_place_back(metrics: GatewayMetrics, how: str) -> None:
    """From the queue, and from a slot that it was given and never took."""
    async with world() as played:
        dispatcher = dispatcher_of(played, metrics)
        held = await asking(dispatcher, *[place({"first"})] * CAP)
        late = 0.0 if how == "deadline" else 1e9
        await leave(await asking(dispatcher, replace(place({"first"}), deadline_s=late)))
        waiting = await asking(dispatcher, place({"first"}))
        held[0].result().end()  # it has the slot now, and was not told yet
        assert len(played.connection.slots) == CAP
        await leave(waiting)
        for task in held[1:]:
            task.result().end()
        assert dispatcher.num_queued == 0
        assert dispatcher.holder_line(FIRST_HOLDER, MANY).waiting_steps == 0
        assert dispatcher.view("t") == replace(dispatcher.view("t"), queued=0, queued_steps=0, ahead_steps=0)
        assert not played.connection.slots
        assert K20.num_inference_steps == N
