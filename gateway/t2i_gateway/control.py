"""What the operator may ask a gateway: its demand and what its workers measured. Reading only."""

import asyncio
from typing import Any

import grpc

from t2i_gateway.parts import Parts
from t2i_protos.v1 import control_pb2, control_pb2_grpc

SERVICE = control_pb2.DESCRIPTOR.services_by_name["Control"].full_name
Context = grpc.aio.ServicerContext[Any, Any]


class ControlService(control_pb2_grpc.ControlServicer):
    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._loop = asyncio.get_running_loop()

    async def GetDemand(  # noqa: N802 - gRPC names its methods
        self, request: control_pb2.GetDemandRequest, context: Context
    ) -> control_pb2.GetDemandResponse:
        del request, context
        parts, now_s, view = self._parts, self._loop.time(), self._parts.dispatchers.view()
        demand = parts.planning.demand
        response = control_pb2.GetDemandResponse(
            queued=view.queued,
            in_flight=view.in_flight,
            plan_revision=parts.planning.plan.revision,
            embedder_trouble=parts.embeddings.trouble,
            store_trouble=parts.neighbours.store_trouble,
        )
        for name, rate in sorted(demand.rates_rps(now_s).items()):
            response.demand.add(prompt_class=name, rate_rps=rate)
        for name, reason in sorted(parts.workers.left_out.items()):
            response.left_out.add(worker=name, reason=reason)
        groups = {(worker.group, worker.model): worker for worker in reversed(view.ready)}
        for (group, model), worker in sorted(groups.items()):
            response.measurements.add(
                group=group,
                step_ms=[1e3 * step for step in worker.step_s[: max(1, worker.batch_cap)]],
                fixed_ms=1e3 * worker.fixed_s,
                ready_workers=sum((one.group, one.model) == (group, model) for one in view.ready),
                model=model,
            )
        for worker in sorted(view.workers, key=lambda one: one.name) if parts.spec.models else ():
            response.held_models.add(worker=worker.name, model=worker.model, ready=worker.ready)
        return response
