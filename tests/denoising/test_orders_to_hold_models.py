"""A worker that is ordered to hold another model ends what it has, says truly what it can, and comes back."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace

import pytest

from t2i_policy.level import Level
from t2i_policy.profile import LevelProfile
from t2i_policy.readiness import ReadyReason
from t2i_worker.engine.simulated import SimulatedEngine
from t2i_worker.errors import (
    EngineLost,
    ModelChanging,
    ModelFixed,
    ModelNotFound,
    NoSuchModel,
    StoppedEarly,
    WorkerDraining,
)
from t2i_worker.health_following import follow_health
from t2i_worker.held_model import RETRIES, HeldModel
from t2i_worker.jobs import Event, Finished, Job, ModelFacts, StoredLatent, Tally

FACTS = ModelFacts("digest", "simulated", "bf16", "none", 4, 1.0, 16, 8, 0, "simulated")
JOB = Job("id", "a prompt", "", 1, 1.0, Level(0, 4), "png")
PROFILE = LevelProfile("simulated", "none", 4, (0.01, 0.01), 0.0, ())
MODELS = ("", "turbo", "tiny")
WITHIN_S = 60.0


class PlayedMaker:
    """Makes simulated engines; `failing` models cannot be made, `missing` ones not found. Loads wait for `gate`."""

    def __init__(self) -> None:
        self.tally = Tally()
        self.own_latents = None
        self.failing: dict[str, Exception] = {}
        self.missing: set[str] = set()
        self.made: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.closed = False
        self.now_s = 0.0

    async def prepare(self, model: str) -> None:
        if model in self.missing:
            raise ModelNotFound("nothing lies there")

    async def make(self, model: str) -> SimulatedEngine:
        self.made.append(model)
        await self.gate.wait()
        if model in self.failing:
            raise self.failing[model]
        return SimulatedEngine(replace(FACTS, model=model), PROFILE, 2, 4, self.tally)

    def keeps(self, model: str) -> bool:
        return model in self.made[:-1]

    async def keep_latent(self, held_id: str) -> tuple[StoredLatent, ...]:
        return (StoredLatent(4, len(held_id)),)

    async def close(self) -> None:
        self.closed = True


@pytest.fixture
async def maker() -> PlayedMaker:
    return PlayedMaker()


@pytest.fixture
async def held(maker: PlayedMaker) -> AsyncIterator[HeldModel]:
    one = HeldModel(maker, await maker.make(""), MODELS, moves=True, clock=lambda: maker.now_s)
    yield one
    maker.gate.set()
    with suppress(StoppedEarly):
        await one.close()


async def draw(held: HeldModel, job: Job = JOB) -> list[Event]:
    return [event async for event in held.generate(job)]


async def until(held: HeldModel, model: str, ready: bool = True) -> None:
    async with asyncio.timeout(WITHIN_S):
        while (held.load().model, held.load().ready) != (model, ready):
            await held.changed()


async def none_due(held: HeldModel) -> None:
    """Return when no order is being followed."""
    if held._task is not None:
        assert (await asyncio.wait([held._task], timeout=WITHIN_S))[0]


async def test_requests_that_were_accepted_are_finished(held: HeldModel, maker: PlayedMaker) -> None:
    """Those that run and those that wait; meanwhile the worker is unready and takes no others."""
    running = [asyncio.create_task(draw(held)) for _ in range(5)]
    while held.load().running < 2 or held.load().waiting < 3:
        await held.changed()
    held.hold("turbo", 1)
    async with asyncio.timeout(WITHIN_S):
        while held.load().ready:
            await held.changed()
    assert (held.load().model, held.load().draining) == ("", False)
    assert held.readiness().reason is ReadyReason.LOADING_MODEL
    assert held.readiness().alive
    with pytest.raises(ModelChanging):
        await draw(held)
    for events in await asyncio.gather(*running):
        assert isinstance(events[-1], Finished)
    await until(held, "turbo")
    assert held.facts.model == "turbo"
    assert maker.made == ["", "turbo"]
    assert isinstance((await draw(held))[-1], Finished)
    assert (maker.tally.reloads, maker.tally.steps_run) == ({"loaded": 1}, 24)


async def test_it_tells_the_model_that_it_loads(held: HeldModel, maker: PlayedMaker) -> None:
    """Unready, with no facts and nothing to do; latents of before can still be kept."""
    maker.gate.clear()
    held.hold("turbo", 1)
    await until(held, "turbo", ready=False)
    with pytest.raises(ModelChanging):
        _ = held.facts
    with pytest.raises(ModelChanging):
        await draw(held)
    assert (held.load().running, held.load().steps_left, held.load().draining) == (0, 0, False)
    assert held.readiness().reason is ReadyReason.LOADING_MODEL
    assert await held.keep_latent("id") == (StoredLatent(4, 2),)
    maker.gate.set()
    await until(held, "turbo")


async def test_health_follows(held: HeldModel, maker: PlayedMaker) -> None:
    said: asyncio.Queue[bool] = asyncio.Queue()
    following = asyncio.create_task(follow_health(held, said.put))
    assert await said.get() is True
    maker.gate.clear()
    held.hold("turbo", 1)
    assert await asyncio.wait_for(said.get(), WITHIN_S) is False
    maker.gate.set()
    assert await asyncio.wait_for(said.get(), WITHIN_S) is True
    following.cancel()
    await asyncio.wait([following])


async def test_older_and_needless_orders_change_nothing(held: HeldModel, maker: PlayedMaker) -> None:
    held.hold("turbo", 5)
    await until(held, "turbo")
    held.hold("", 4)
    await none_due(held)
    held.hold("turbo", 5)
    held.hold("turbo", 9)
    await none_due(held)
    assert (maker.made, held.load().model) == (["", "turbo"], "turbo")
    held.hold("", 9)
    await until(held, "")
    assert maker.tally.reloads == {"loaded": 1, "kept": 1}


async def test_newest_order_counts_in_the_end(held: HeldModel, maker: PlayedMaker) -> None:
    """Orders that come during a load are followed after it."""
    maker.gate.clear()
    held.hold("turbo", 1)
    await until(held, "turbo", ready=False)
    held.hold("", 2)
    held.hold("tiny", 3)
    maker.gate.set()
    await until(held, "tiny")
    assert maker.made == ["", "turbo", "tiny"]


async def test_order_that_is_called_off_loads_nothing_else(held: HeldModel, maker: PlayedMaker) -> None:
    running = asyncio.create_task(draw(held))
    while not held.load().running:
        await held.changed()
    held.hold("turbo", 1)
    while held.load().ready:
        await held.changed()
    held.hold("", 2)
    await running
    await until(held, "")
    assert maker.made == ["", ""]


@pytest.mark.parametrize("found", [True, False])
async def test_model_that_fails_leaves_the_one_before(
    held: HeldModel, maker: PlayedMaker, found: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told, and neither tried again at that revision nor soon. What is not there costs no service."""
    if found:
        maker.failing["turbo"] = RuntimeError("weights are broken")
    else:
        maker.missing.add("turbo")
    held.hold("turbo", 1)
    await none_due(held)
    assert (held.load().model, held.load().ready, held.facts.model) == ("", True, "")
    assert isinstance((await draw(held))[-1], Finished)
    assert "model 'turbo' was not loaded" in caplog.text
    assert maker.tally.reloads == {"failed": 1}
    assert maker.made == (["", "turbo", ""] if found else [""])
    held.hold("turbo", 2)  # at once
    maker.now_s = RETRIES.first_s
    held.hold("turbo", 2)
    await none_due(held)
    assert maker.tally.reloads == {"failed": 2}
    maker.now_s += RETRIES.most_s
    held.hold("turbo", 2)
    await none_due(held)
    assert maker.tally.reloads == {"failed": 2}
    maker.failing.clear()
    maker.missing.clear()
    held.hold("turbo", 3)
    await until(held, "turbo")


@pytest.mark.parametrize(
    ("failing", "reason"),
    [
        ({"turbo": RuntimeError("a"), "": RuntimeError("b")}, ReadyReason.LOOP_ENDED),
        ({"turbo": EngineLost("gone", ReadyReason.DEVICE_LOST)}, ReadyReason.DEVICE_LOST),
    ],
)
async def test_process_ends_where_no_model_can_be_held(
    held: HeldModel, maker: PlayedMaker, failing: dict[str, Exception], reason: ReadyReason
) -> None:
    maker.failing |= failing
    held.hold("turbo", 1)
    await none_due(held)
    assert (held.readiness().reason, held.readiness().lost, held.load().ready) == (reason, True, False)


async def test_drain_ends_a_change(held: HeldModel, maker: PlayedMaker) -> None:
    """What it has is finished, and nothing is loaded for a worker that goes."""
    running = asyncio.create_task(draw(held))
    while not held.load().running:
        await held.changed()
    held.hold("turbo", 1)
    while held.load().ready:
        await held.changed()
    await asyncio.wait_for(held.drain(), WITHIN_S)
    assert isinstance((await running)[-1], Finished)
    await none_due(held)
    assert (maker.made, held.load().draining, held.readiness().reason) == ([""], True, ReadyReason.DRAINING)
    with pytest.raises(WorkerDraining):
        held.hold("turbo", 2)
    await held.close()
    assert maker.closed


async def test_drain_does_not_wait_for_a_load(held: HeldModel, maker: PlayedMaker) -> None:
    """A thread may still load; closing says that the process should not wait for it."""
    maker.gate.clear()
    held.hold("turbo", 1)
    await until(held, "turbo", ready=False)
    await asyncio.wait_for(held.drain(), WITHIN_S)
    with pytest.raises(WorkerDraining):
        await draw(held)
    with pytest.raises(StoppedEarly):
        await held.close()
    assert maker.closed


async def test_orders_need_a_pool_that_moves_and_a_model_of_it(maker: PlayedMaker) -> None:
    fixed = HeldModel(maker, await maker.make(""), MODELS, moves=False)
    with pytest.raises(ModelFixed, match="moves is None"):
        fixed.hold("turbo", 1)
    moving = HeldModel(maker, await maker.make(""), MODELS, moves=True)
    with pytest.raises(NoSuchModel, match=r"'other'.*'tiny', 'turbo'"):
        moving.hold("other", 1)


async def test_background_requests_are_let_go(held: HeldModel, maker: PlayedMaker) -> None:
    """Nobody waits for them; the gateway asks another worker."""
    aside = asyncio.create_task(draw(held, replace(JOB, background=True, level=Level(0, 1000))))
    while not held.load().background:
        await held.changed()
    held.hold("turbo", 1)
    await until(held, "turbo")
    with pytest.raises(WorkerDraining):
        await asyncio.wait_for(aside, WITHIN_S)
    assert maker.made == ["", "turbo"]
