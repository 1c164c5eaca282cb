"""The one model that a worker holds, and how orders have it hold another of the pool's.

A change goes like this:

1. what the other model needs is found, downloaded if it is a hub's, while the worker still serves;
2. the worker takes no more requests, and ends those that it has; background requests are let go;
3. the engine of the model before ends, and one of the other model is made: loaded, warmed up and tested;
4. the worker is ready again. If the other model fails, it goes back to the one before.

Health follows: the worker is unready from step 2 on. A model that failed is not tried again at that revision, nor soon:
each try costs time of service. A drain ends all this: no model is loaded for a worker that goes.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import aclosing
from dataclasses import replace
from math import inf
from typing import NamedTuple, Protocol

from t2i_cache.stores import BoundedStore
from t2i_policy.backoff import Backoff
from t2i_policy.readiness import EngineSigns, Readiness, ReadyReason, judge_readiness
from t2i_worker.errors import EngineLost, ModelChanging, ModelFixed, NoSuchModel, StoppedEarly, WorkerDraining
from t2i_worker.jobs import Engine, Event, Job, Load, ModelFacts, StoredLatent, Tally

log = logging.getLogger(__name__)
RETRIES = Backoff(first_s=60.0, most_s=3600.0)
LOAD_LIMIT_S = 1800.0  # of one model; longer is a fault
CLOSE_LIMIT_S = 2.0


class EngineMaker(Protocol):
    """Makes the engines of a worker, one at a time. All count into one tally and share the latent store."""

    tally: Tally

    @property
    def own_latents(self) -> BoundedStore | None:
        """As an engine's."""

    async def prepare(self, model: str) -> None:
        """Find what the model needs, by its name in the pool, while another serves.

        Raises:
            ModelError: it is not there.
        """

    async def make(self, model: str) -> Engine:
        """A warm engine that drew an image. The one before is closed; its model stays in memory where there is room.

        Raises:
            Exception: the model cannot be loaded; after EngineLost no other can.
        """

    def keeps(self, model: str) -> bool:
        """Whether it is in memory, so that `make` takes little."""

    async def keep_latent(self, held_id: str) -> tuple[StoredLatent, ...]:
        """As an engine's, of whichever engine set it aside."""

    async def close(self) -> None:
        """After the engine: close the store."""


class _Order(NamedTuple):
    model: str
    revision: int


class _Failures(NamedTuple):
    """Orders in a row that failed, the last of them, and until when its model is not tried again."""

    in_a_row: int
    last: _Order
    until_s: float


class HeldModel:
    """An engine in whose place another may stand later. `moves`: whether orders are followed."""

    def __init__(
        self,
        maker: EngineMaker,
        engine: Engine,
        models: Collection[str],
        moves: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`models`: the names of all models of the pool."""
        self.tally = maker.tally
        self._maker = maker
        self._engine: Engine | None = engine  # None while another is made
        self._models = frozenset(models)
        self._moves = moves
        self._held = engine.facts.model  # or what is being loaded
        self._load = engine.load()  # as it was last
        self._order = _Order(self._held, 0)
        self._failures: _Failures | None = None
        self._clock = clock
        self._changing = False  # no requests are taken
        self._draining = False
        self._lost: ReadyReason | None = None
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None  # follows orders, while one is due

    @property
    def facts(self) -> ModelFacts:
        """Raises:
        ModelChanging: there are none while another model is loaded.
        """
        if self._engine is None:
            raise self._refusal()
        return self._engine.facts

    @property
    def own_latents(self) -> BoundedStore | None:
        return self._maker.own_latents

    def load(self) -> Load:
        if self._engine is None:
            return replace(self._load, draining=self._draining, model=self._held)
        load = self._engine.load()
        if not (self._changing or self._draining):
            return load
        return replace(load, ready=False, draining=self._draining)

    def readiness(self) -> Readiness:
        own = None if self._engine is None else self._engine.readiness()
        if own is not None and not (own.alive and (self._changing or self._draining)):
            return own
        return judge_readiness(EngineSigns(draining=self._draining, loading=self._changing, lost=self._lost))

    async def changed(self) -> None:
        await (self._news.wait() if self._engine is None else self._engine.changed())

    async def generate(self, job: Job) -> AsyncGenerator[Event, None]:
        if self._changing or self._draining or self._engine is None:
            raise self._refusal()
        async with aclosing(self._engine.generate(job)) as events:
            async for event in events:
                yield event

    async def keep_latent(self, held_id: str) -> tuple[StoredLatent, ...]:
        return await self._maker.keep_latent(held_id)

    def hold(self, model: str, revision: int) -> None:
        """Order to hold a model, by its name in the pool. What it has is ended first; nobody waits for that here.

        Raises:
            ModelFixed: the pool's workers keep their models.
            NoSuchModel: the pool has no such model.
            WorkerDraining: the worker goes.
        """
        if not self._moves:
            raise ModelFixed("spec.mix.moves is None, so workers keep the model of their group")
        if model not in self._models:
            names = ", ".join(sorted(repr(name) for name in self._models if name))
            raise NoSuchModel(
                f"model: the pool has none called {model[:64]!r}; it has its own, which is '', and {names}"
            )
        if self._draining:
            raise WorkerDraining("the worker is shutting down")
        if revision < self._order.revision:
            log.info("left out: an order of revision %d, after one of %d", revision, self._order.revision)
            return
        self._order = _Order(model, revision)
        if self._task is None and self._due:
            self._task = asyncio.create_task(self._follow_orders(), name="model-change")

    async def drain(self) -> None:
        self._draining = True
        self._tell()
        if self._engine is not None:
            await self._engine.drain()

    async def close(self) -> None:
        """Raises:
        StoppedEarly: a thread still loads a model, which cannot be told to stop.
        """
        self._draining = True
        following = self._task
        if following is not None:
            following.cancel()
            await asyncio.wait([following], timeout=CLOSE_LIMIT_S)
        if self._engine is not None:
            await self._engine.close()
        await self._maker.close()
        if following is not None and self._lost is None:
            raise StoppedEarly("told to stop while another model was loaded")

    @property
    def _due(self) -> bool:
        order = self._order
        return order.model != self._held and not self._draining and not self._is_hopeless(order)

    def _is_hopeless(self, order: _Order) -> bool:
        """Whether it failed before, and another try may not help yet."""
        failed = self._failures
        if failed is None or failed.last.model != order.model:
            return False
        return failed.last == order or self._clock() < failed.until_s

    def _refusal(self) -> ModelChanging | WorkerDraining:
        if self._draining:
            return WorkerDraining("the worker is shutting down")
        return ModelChanging("the worker loads another model of the pool; other workers take requests meanwhile")

    def _tell(self) -> None:
        """Wake those who wait for a change while there is no engine."""
        self._news.set()
        self._news = asyncio.Event()

    async def _follow_orders(self) -> None:
        try:
            while self._due and self._lost is None:
                await self._follow(self._order)
        finally:
            self._task = None

    async def _follow(self, order: _Order) -> None:
        began_s = time.monotonic()
        try:
            await self._maker.prepare(order.model)
        except Exception as error:  # noqa: BLE001 - whatever a hub's library raises, the worker serves on
            self._count_failure(order, _told(error), 0.0)
            return
        log.info("model %s is due by revision %d, after %.1f s", _name(order.model), order.revision, _since(began_s))
        if self._engine is not None and self._order == order and not self._draining:
            await self._change(self._engine, order)

    async def _change(self, engine: Engine, order: _Order) -> None:
        before, began_s = engine.facts.model, time.monotonic()
        self._changing = True
        try:
            await engine.drain()  # which wakes those who wait for a change
            if self._draining:
                return
            if not engine.readiness().alive:
                raise EngineLost("the engine does not end what it has", ReadyReason.LOOP_ENDED)
            if self._order.model == before:  # it was called off meanwhile
                order = self._order
            log.info("all requests have ended after %.1f s", _since(began_s))
            self._load = _idle(engine.load())
            kept = self._maker.keeps(order.model)
            self._engine, self._held = None, order.model
            await engine.close()
            del engine
            await asyncio.sleep(0)  # whoever waited for a change of it lets go of it, and so of its model
            failure = await self._try(order)
            if failure is None:
                self._failures = None
                self._count("kept" if kept else "loaded", _since(began_s))
                return
            self._held = before
            self._engine = await self._made(before)
            self._count_failure(order, failure, _since(began_s))
        except EngineLost as error:
            self._lost = error.reason
        except Exception:
            log.exception("neither model can be loaded: the worker ends")
            self._lost = ReadyReason.LOOP_ENDED
        finally:
            self._changing = self._engine is None or self._lost is not None
            self._tell()

    async def _try(self, order: _Order) -> str | None:
        """Make its engine. Otherwise the reason why not: the exception itself would hold what was loaded in memory."""
        try:
            self._engine = await self._made(order.model)
        except EngineLost:
            raise
        except Exception as error:  # noqa: BLE001 - libraries raise their own kinds; the model before must serve
            return _told(error)
        return None

    async def _made(self, model: str) -> Engine:
        """Raises:
        EngineLost: it takes too long.
        """
        making = asyncio.create_task(self._maker.make(model))
        try:
            await asyncio.wait([making], timeout=LOAD_LIMIT_S)
            if making.done():
                return making.result()
            raise EngineLost(f"a model was not loaded within {LOAD_LIMIT_S:.0f} s", ReadyReason.LOOP_ENDED)
        finally:
            making.cancel()

    def _count(self, outcome: str, took_s: float) -> None:
        self.tally.reloads[outcome] = self.tally.reloads.get(outcome, 0) + 1
        self.tally.reloads_took_s[outcome] = self.tally.reloads_took_s.get(outcome, 0.0) + took_s
        log.info("model %s: %s, out of service for %.2f s", _name(self._held), outcome, took_s)

    def _count_failure(self, order: _Order, failure: str, took_s: float) -> None:
        count = 1 + (self._failures.in_a_row if self._failures is not None else 0)
        pause_s = RETRIES.pause_s(count)
        self._failures = _Failures(count, order, self._clock() + pause_s)
        text = "model %s was not loaded; it may be ordered again after %.0f s: %s"
        log.error(text, _name(order.model), pause_s, failure)
        self._count("failed", took_s)


def _idle(load: Load) -> Load:
    """That of a worker with nothing to do, which is not ready."""
    nothing = replace(load, running=0, waiting=0, steps_left=0, places=0.0, background=0)
    return replace(nothing, ready=False, step_age_s=0.0, encode_age_s=0.0, longest_step_s=inf)


def _name(model: str) -> str:
    return repr(model) if model else "of the pool"


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _since(began_s: float) -> float:
    return time.monotonic() - began_s
