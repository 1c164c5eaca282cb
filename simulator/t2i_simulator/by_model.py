"""The dispatchers of a simulated pool, one for each model that its workers hold.

Workers of different models are different resources, so each model has its workers, its queues and its turns. With one
model everything is as it would be without this file.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from t2i_policy.pool_view import PoolView, join_parts
from t2i_simulator.clock import Clock
from t2i_simulator.dispatching import SimulatedDispatcher, SimulatedRequest
from t2i_simulator.faults import Fault, Faults
from t2i_simulator.outcomes import Outcomes
from t2i_simulator.workers import Group, SimulatedPool, SimulatedWorker


@dataclass(frozen=True, slots=True)
class ModelWorkers:
    """The workers that hold one model, and what hands requests to them."""

    pool: SimulatedPool
    dispatcher: SimulatedDispatcher


@dataclass(frozen=True, slots=True)
class Dispatchers:
    """By model; "" is the pool's own."""

    by_model: Mapping[str, ModelWorkers]
    only: SimulatedDispatcher | None = field(init=False)  # where there is but the pool's own model

    def __post_init__(self) -> None:
        own = self.by_model.get("")
        object.__setattr__(self, "only", own.dispatcher if own is not None and len(self.by_model) == 1 else None)

    @classmethod
    def build(
        cls,
        groups: Sequence[Group],
        gateways: int,
        make: Callable[[SimulatedPool], SimulatedDispatcher],
        movable: bool = False,
    ) -> "Dispatchers":
        """`make` is called for the workers of each model. `movable`: each worker is in the pool of each model, and
        holds that of its group."""
        models = dict.fromkeys(sorted(group.model for group in groups))
        own = {group.name: group.model for group in groups}
        pools = {
            model: SimulatedPool(
                [replace(group, model=model) for group in groups if movable or group.model == model], gateways
            )
            for model in models
        }
        for model, pool in pools.items():
            for worker in pool.workers:
                if own[worker.group] != model:
                    worker.holds = False
                    pool.changed(worker)
        return cls({model: ModelWorkers(pool, make(pool)) for model, pool in pools.items()})

    def view(self, now_s: float, gateway: int = 0, tenant: str | None = None) -> PoolView:
        """As `SimulatedDispatcher.view`, in parts where there are several models or none of the pool's own."""
        if self.only is not None:
            return self.only.view(now_s, gateway, tenant)
        return join_parts({model: one.dispatcher.view(now_s, gateway, tenant) for model, one in self.by_model.items()})

    def of_model(self, model: str) -> SimulatedDispatcher:
        """What serves this model; without workers of it, what serves the first one."""
        return (self.by_model.get(model) or next(iter(self.by_model.values()))).dispatcher

    def queue_room(self, model: str, gateway: int, tenant: str, max_queued: int) -> int:
        """How many may wait for this model before a request is one too many: the bound is on all that wait."""
        if self.only is not None:
            return self.only.queue_room(gateway, tenant, max_queued)
        elsewhere = sum(one.dispatcher.queued(gateway) for name, one in self.by_model.items() if name != model)
        return self.of_model(model).queue_room(gateway, tenant, max(0, max_queued - elsewhere))

    def submit(self, request: SimulatedRequest, now_s: float) -> None:
        """To the workers that hold the model of its level."""
        self.of_model(request.level.model).submit(request, now_s)

    def holder(self, name: str) -> tuple[SimulatedPool, SimulatedWorker]:
        """The worker of a view's name, and its pool: where it holds the model, if it does anywhere.

        Raises:
            KeyError: there is none.
        """
        found = [one.pool for one in self.by_model.values() if one.pool.has(name)]
        if not found:
            raise KeyError(name)
        pool = next((pool for pool in found if pool.by_name(name).holds), found[0])
        return pool, pool.by_name(name)

    def schedule(self, faults: Iterable[Fault], clock: Clock, outcomes: Outcomes) -> None:
        """Raises:
        KeyError: a fault names no worker.
        """
        watching = {id(one.pool): Faults(clock, one.pool, one.dispatcher, outcomes) for one in self.by_model.values()}
        for fault in faults:
            self.holder(fault.worker)
            for one in self.by_model.values():
                if one.pool.has(fault.worker):
                    watching[id(one.pool)].schedule([fault])
