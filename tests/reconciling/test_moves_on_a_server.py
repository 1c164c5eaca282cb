"""A worker that moves between models, on a real API server, with an operator that is replaced while it does."""

from typing import Any

import grpc
import pytest

from model_scenes import GROUPS, profile_of, section
from operator_world import Document, World, condition, operator_settings, pool_document, running_operator
from t2i_operator import polling
from t2i_policy.planning import moves
from t2i_protos.v1 import control_pb2, control_pb2_grpc

WORKERS = {"p-a-0": "", "p-a-1": "", "p-b-0": "few", "p-b-1": "few"}


class MovingGateway(control_pb2_grpc.ControlServicer):
    """A gateway that is asked for more exact images than the large model's two workers make. `held`: what it hears of
    the workers."""

    def __init__(self) -> None:
        self.held = {
            name: control_pb2.HeldModel(worker=name, model=model, ready=True) for name, model in WORKERS.items()
        }

    def hears(self, worker: str, model: str, ready: bool) -> None:
        """From now on."""
        self.held[worker] = control_pb2.HeldModel(worker=worker, model=model, ready=ready)

    async def GetDemand(self, request: control_pb2.GetDemandRequest, context: Any) -> control_pb2.GetDemandResponse:
        """What it says now."""
        answer = control_pb2.GetDemandResponse(held_models=self.held.values())
        answer.demand.add(prompt_class="exact", rate_rps=6.0)
        return answer


async def bring_up_with(world: World, gateway: MovingGateway, server: grpc.aio.Server) -> None:
    """All workers are ready, and the gateway's pod is the test's."""
    control_pb2_grpc.add_ControlServicer_to_server(gateway, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await world.wait("children", world.children, lambda found: "Deployment/p-gateway" in found)
    for group in ("a", "b"):
        for number in range(2):
            await world.start_pod(f"StatefulSet/p-{group}", number)
        await world.rolled_out(f"StatefulSet/p-{group}")
    await world.start_played_pod("Deployment/p-gateway", "127.0.0.1", port)


def holders(pool: Document, model: str) -> list[str]:
    """The workers that are to hold a model, by the plan."""
    placed = pool["status"]["plan"]["placements"]
    return sorted(
        f"p-{one['group']}-{number}" for one in placed if one.get("model", "") == model for number in one["numbers"]
    )


async def test_worker_moves_under_an_operator_that_is_replaced(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order is in the plan, for gateways to follow. The next operator knows of it, and ends it when it is done."""
    monkeypatch.setattr(moves, "FOLLOWED_S", 0.5)  # how long demand is watched
    monkeypatch.setattr(polling, "MOVES_EVERY_S", 0.2)
    gateway, server = MovingGateway(), grpc.aio.server()
    config = {"metadata": {"name": "both"}, "data": {"profile.json": profile_of(section())}}
    await world.call("POST", f"/api/v1/namespaces/{world.namespace}/configmaps", config)
    spec = {"workerGroups": list(GROUPS), "profileRef": {"name": "both"}, "mix": {"moves": "Reload"}}
    async with running_operator(operator_settings(world.server, world.namespace)):
        await world.create(pool_document(**spec))
        await bring_up_with(world, gateway, server)
        pool = await world.until("a move", lambda pool: pool["status"]["move"]["toModel"] == "reference")
        mover = pool["status"]["move"]["worker"]
        assert mover == "p-b-1"
        assert (holders(pool, ""), holders(pool, "few")) == (["p-a-0", "p-a-1", "p-b-1"], ["p-b-0"])
        label = "0-of-12"  # follows the plan
        await world.wait(
            "its label", world.pods, lambda pods: pods[mover]["metadata"]["labels"]["t2iserving.dev/level"] == label
        )
        gateway.hears(mover, "", ready=False)
        await world.pod_status(mover, ready=False)
        await world.until_condition("Progressing", "True", "Reloading")
        assert condition(await world.pool(), "Ready")["status"] == "True", "a move that is wanted is no fault"
    revision = (await world.pool())["status"]["plan"]["revision"]
    async with running_operator(operator_settings(world.server, world.namespace, "two")):
        await world.pod_status(mover, ready=True)
        gateway.hears(mover, "", ready=True)
        pool = await world.until("it is there", lambda pool: "move" not in pool["status"])
        models = {one["name"]: one for one in pool["status"]["models"]}
        assert (models["reference"]["workers"], models["reference"]["ready"]) == (3, 3)
        assert models["reference"]["reloadMilliseconds"] > 0
        assert holders(pool, "few") == ["p-b-0"], "it is the last one, so it stays, whatever the demand"
        assert pool["status"]["plan"]["revision"] > revision
        await world.wait("events", world.event_reasons, lambda reasons: {"Moving", "Moved"} <= reasons)
    await server.stop(None)
