"""The load that the page asks for: who it is, that it is bounded, and that it ends."""

import asyncio
from contextlib import nullcontext
from itertools import chain, repeat

import pytest
from prometheus_client import CollectorRegistry

from t2i_gateway.errors import WorkersUnavailable
from t2i_gateway.events import Events
from t2i_gateway.metrics import GatewayMetrics
from t2i_gateway.playground.synthetic_load import MAX_IN_FLIGHT, RENEW_WITHIN_S, TENANT, SyntheticLoad
from t2i_protos.v1 import gateway_pb2
from t2i_runtime.tls.names import is_tenant_name
from t2i_testing_kit.serving import until


class PlayedIntake:
    """Takes requests, and ends them as it is told."""

    def __init__(self) -> None:
        self.tenants: set[str] = set()
        self.prompts: set[str] = set()
        self.taken = 0
        self.ends = asyncio.Event()
        self.error: Exception | None = None

    def held(self, _: int) -> nullcontext[None]:
        return nullcontext()

    async def generate(self, message: gateway_pb2.GenerateRequest, tenant: str, left_s: float) -> Events:
        self.tenants.add(tenant)
        self.prompts.add(message.prompt)
        self.taken += 1
        await self.ends.wait()
        if self.error is not None:
            raise self.error
        yield gateway_pb2.GenerateEvent()


class PlayedClock:
    """Of the load: it goes when it is told."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


async def settled(load: SyntheticLoad, intake: PlayedIntake, taken: int) -> None:
    """Until so many were taken."""

    async def look() -> int:
        return intake.taken

    await until(f"{taken} requests", look, lambda seen: seen >= taken)


@pytest.fixture
def intake() -> PlayedIntake:
    """Where the load goes."""
    return PlayedIntake()


@pytest.fixture
def clock() -> PlayedClock:
    """What renewals are held against."""
    return PlayedClock()


@pytest.fixture
def load(intake: PlayedIntake, clock: PlayedClock) -> SyntheticLoad:
    """Of a pool with an SLO of a second."""
    metrics = GatewayMetrics(CollectorRegistry())
    return SyntheticLoad(intake, metrics, 1.0, clock)  # type: ignore[arg-type]


async def test_it_is_a_tenant_that_no_caller_can_be(load: SyntheticLoad, intake: PlayedIntake) -> None:
    """Its cached latents and its share of the queue are nobody else's."""
    assert not is_tenant_name(TENANT)
    intake.ends.set()
    running = asyncio.ensure_future(load.run())
    load.ask(500.0, ["a red circle", "a blue square"])
    await settled(load, intake, 20)
    assert intake.tenants == {TENANT}
    assert intake.prompts <= {"a red circle", "a blue square"}
    running.cancel()


async def test_it_is_bounded_in_flight(load: SyntheticLoad, intake: PlayedIntake) -> None:
    """What a stuck pool does not take is not sent, and counted. Its end takes all of them along."""
    running = asyncio.ensure_future(load.run())
    load.ask(1000.0, ["a red circle"])
    await settled(load, intake, MAX_IN_FLIGHT)

    async def held_back() -> int:
        return load.sent.held_back

    await until("one is held back", held_back, lambda seen: seen > 0)
    assert (load.in_flight, intake.taken) == (MAX_IN_FLIGHT, MAX_IN_FLIGHT)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert load.in_flight == 0


async def test_it_ends_where_nobody_renews_it(load: SyntheticLoad, intake: PlayedIntake, clock: PlayedClock) -> None:
    """A page that was closed must not load the pool for ever. It may ask again."""
    intake.ends.set()
    running = asyncio.ensure_future(load.run())
    load.ask(500.0, ["a red circle"])
    await settled(load, intake, 5)
    clock.now_s = RENEW_WITHIN_S
    assert load.rps == 0
    load.ask(500.0, ["a red circle"])
    await settled(load, intake, intake.taken + 5)
    load.ask(0.0, [])
    assert load.rps == 0
    running.cancel()


@pytest.mark.parametrize("error", [WorkersUnavailable("no worker"), ValueError("a fault of ours")])
async def test_what_fails_does_not_end_it(load: SyntheticLoad, intake: PlayedIntake, error: Exception) -> None:
    """Refusals are counted; a fault in one request is not the gateway's end."""
    intake.ends.set()
    intake.error = error
    running = asyncio.ensure_future(load.run())
    load.ask(500.0, ["a red circle"])
    await settled(load, intake, 10)
    assert not running.done()
    assert load.sent.drawn == 0
    assert load.sent.refused + load.sent.failed >= 9
    running.cancel()


async def test_it_may_end_between_two_looks_at_the_clock(intake: PlayedIntake) -> None:
    """The time of the last renewal can be over at any look; the gateway goes on."""
    before = chain([0.0, RENEW_WITHIN_S - 0.001], repeat(RENEW_WITHIN_S))  # asked; wanted still; no more
    load = SyntheticLoad(intake, GatewayMetrics(CollectorRegistry()), 1.0, lambda: next(before))  # type: ignore[arg-type]
    running = asyncio.ensure_future(load.run())
    load.ask(500.0, ["a red circle"])
    await asyncio.wait([running], timeout=0.5)  # it must not end, however long we look
    assert not running.done()
    running.cancel()
