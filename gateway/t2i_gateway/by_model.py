"""The dispatchers of one gateway, one for each of the pool's models.

Workers of different models are different resources, so each model has its workers, its queue and its turns. In a pool
of one model everything is as it would be without this file.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from t2i_gateway.attempt import Attempt
from t2i_gateway.dispatch import Dispatcher, QueuePlace
from t2i_gateway.workers.other_gateways import OtherGateways
from t2i_policy.pool_view import PoolView, join_parts
from t2i_policy.request.placement import Placement
from t2i_protos.v1 import worker_pb2


@dataclass(frozen=True, slots=True)
class ModelDispatchers:
    """By model; "" is the pool's own, which is always there. Used from one event loop."""

    by_model: Mapping[str, Dispatcher]
    others: OtherGateways

    @property
    def gateways(self) -> int:
        """How many share the workers, this one included."""
        return self.by_model[""].gateways

    @property
    def are_several(self) -> bool:
        return len(self.by_model) > 1

    def of_model(self, model: str) -> Dispatcher:
        """Raises:
        KeyError: the pool has no such model.
        """
        return self.by_model[model]

    def view(self, tenant: str | None = None) -> PoolView:
        """As `Dispatcher.view`, in parts where there are several models."""
        views = {model: one.view(tenant) for model, one in self.by_model.items()}
        return join_parts(views) if self.are_several else views[""]

    def queue_room(self, model: str, tenant: str, max_queued: int) -> int:
        """How many may wait for this model before a request is one too many: the bound is on all that wait."""
        elsewhere = sum(one.num_queued for name, one in self.by_model.items() if name != model)
        return self.by_model[model].queue_room(tenant, max(0, max_queued - elsewhere))

    async def attempt(self, place: QueuePlace) -> Attempt:
        """As `Dispatcher.attempt`, at a worker that holds the model of its level."""
        return await self.by_model[place.level.model].attempt(place)

    def placement(self, place: QueuePlace) -> Placement | None:
        """Where a request would go now; `Explain` tells it."""
        return self.by_model[place.level.model].placement(place)

    def tell_others(self, request: worker_pb2.WorkerGenerateRequest, rate_rps: float) -> None:
        """Let the other gateways know, through a worker, what waits here for its model and how many requests come."""
        self.by_model[request.level.model].tell_others(request, rate_rps)

    def demand_factor(self, rate_rps: float) -> float:
        """How many times the demand of this gateway (requests/s) the pool's is."""
        others_rps = self.others.rate_rps
        if self.gateways == 1 or others_rps is None or rate_rps <= 0:
            return self.gateways
        return 1 + others_rps / rate_rps

    def weigh(self, tenant: str, weight: float) -> None:
        """Give a tenant a weight beside those of the pool's document."""
        for one in self.by_model.values():
            one.weigh(tenant, weight)
