"""Latents that lie with some workers only: who waits for a holder, who is served without, and where each goes."""

import pytest
from prometheus_client import CollectorRegistry

from played_workers import CAP, World, world
from small_pools import EXACT, K20, RULES, SLO_S, STEP_S, STORED, N, asks
from t2i_gateway.dispatch import Dispatcher, Place
from t2i_gateway.metrics import GatewayMetrics
from t2i_policy.deciding import Decided
from t2i_policy.holders import HolderLine, choose_with_holders, reachable_steps
from t2i_policy.levels import Level
from t2i_policy.policies import PromptAware
from t2i_policy.serving import ServedReason
from t2i_policy.views import PoolView, WorkerView
from t2i_policy.wanted import Neighbourhood

FIRST = frozenset({"w0"})


def worker(name: str, running: int = 0, ready: bool = True) -> WorkerView:
    return WorkerView(name, ready, running, 0, 4, 0, STEP_S, 0.0, 25 * running, "gpu")


def chosen(pool: PoolView, line: HolderLine, left_s: float = SLO_S) -> Decided:
    """Of a near-repeat, whose wanted level skips 25 of 50 steps."""
    arrival = asks(0.99)
    alone = Neighbourhood(0.99, frozenset())
    latent = RULES.decide(arrival, pool, {})
    without = RULES.decide(type(arrival)(arrival.limits, alone, arrival.left_s, arrival.draw), pool, {})
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


def test_only_steps_of_ready_workers_are_offered() -> None:
    """A latent on a worker that is away is no choice."""
    holdings = {20: FIRST, 10: frozenset({"w0", "w1"}), 5: frozenset({"w1"})}
    assert reachable_steps(holdings, [worker("w0", ready=False), worker("w1")]) == {10, 5}
    assert {5, 10, 20} <= STORED


@pytest.fixture
def metrics() -> GatewayMetrics:
    return GatewayMetrics(CollectorRegistry())


def place(holders: set[str] | None, level: Level = K20) -> Place:
    return Place("t", level, 1e9, holders=None if holders is None else lambda: frozenset(holders))


def dispatcher_of(played: World, metrics: GatewayMetrics) -> Dispatcher:
    return Dispatcher(PromptAware(), played.pool, {}, metrics)


async def test_request_waits_for_a_holder_of_its_latent(metrics: GatewayMetrics) -> None:
    """While another worker is free; who needs no latent passes it, and its slot is the holder's next one."""
    async with world() as played:
        dispatcher = dispatcher_of(played, metrics)
        filling = [dispatcher.enter(place({"first"})) for _ in range(CAP)]
        waiting = dispatcher.enter(place({"first"}))
        passing = dispatcher.enter(place(None, EXACT))
        leases = [await dispatcher.lease(ticket) for ticket in (*filling, passing)]
        assert [lease.link.name for lease in leases] == ["first"] * CAP + ["second"]
        assert not waiting.ready.done()
        assert dispatcher.steps_waiting_for(frozenset({"first"})) == K20.steps_run
        leases[0].end()
        assert (await dispatcher.lease(waiting)).link.name == "first"
        assert dispatcher.num_queued == 0


async def test_request_goes_to_who_holds_its_latent_by_then(metrics: GatewayMetrics) -> None:
    """A copy that was drawn meanwhile serves as well; with no holder left, any worker does."""
    async with world() as played:
        dispatcher = dispatcher_of(played, metrics)
        holders = {"first"}
        for _ in range(CAP):
            await dispatcher.lease(dispatcher.enter(place(holders)))
        waiting = [dispatcher.enter(place(holders)) for _ in range(2)]
        holders.add("second")
        dispatcher.pump()
        assert [(await dispatcher.lease(ticket)).link.name for ticket in waiting] == ["second"] * 2
        gone = dispatcher.enter(place(set()))
        assert (await dispatcher.lease(gone)).link.name == "second"


async def test_waiting_for_a_holder_makes_no_queue_for_others(metrics: GatewayMetrics) -> None:
    """A request that any worker can serve finds the free one free."""
    async with world() as played:
        dispatcher = dispatcher_of(played, metrics)
        for _ in range(CAP + 3):
            dispatcher.enter(place({"first"}))
        assert dispatcher.num_queued == 3
        assert dispatcher.view("other").queue_wait_s() == 0.0
        assert dispatcher.view().backlog_s() > 0


async def test_request_that_leaves_gives_its_place_back(metrics: GatewayMetrics) -> None:
    """From the queue, and from a slot that it was given and never took."""
    async with world() as played:
        dispatcher = dispatcher_of(played, metrics)
        tickets = [dispatcher.enter(place({"first"})) for _ in range(CAP + 1)]
        for ticket in tickets:
            dispatcher.leave(ticket)
            dispatcher.leave(ticket)
        assert dispatcher.num_queued == 0
        assert played.link.in_flight == 0
        assert K20.num_inference_steps == N
