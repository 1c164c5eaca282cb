"""Workers that fail their requests, as gateways tell the operator over the wire, be they ready or not."""

from typing import Any

import grpc
import pytest

from operator_world import World, condition, pool_document
from t2i_protos.v1 import control_pb2, control_pb2_grpc


class TellingGateway(control_pb2_grpc.ControlServicer):
    """A gateway without demand that leaves out `failing`."""

    def __init__(self) -> None:
        self.failing: list[str] = []

    async def GetDemand(self, request: control_pb2.GetDemandRequest, context: Any) -> control_pb2.GetDemandResponse:
        """What it says now."""
        left_out = [control_pb2.LeftOutWorker(worker=name, reason="Failing") for name in self.failing]
        return control_pb2.GetDemandResponse(left_out=left_out)


@pytest.mark.usefixtures("operator")
async def test_conditions_follow_what_gateways_tell(world: World) -> None:
    """One that is not ready is asked too: it may be that because every worker fails. Mended, all is well again."""
    telling, server = TellingGateway(), grpc.aio.server()
    control_pb2_grpc.add_ControlServicer_to_server(telling, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await world.create(pool_document())
    await world.wait("children", world.children, lambda found: "Deployment/p-gateway" in found)
    for number in range(2):
        await world.start_pod("StatefulSet/p-a", number)
    await world.rolled_out("StatefulSet/p-a")
    await world.start_played_pod("Deployment/p-gateway", "127.0.0.1", port)
    await world.until_condition("Ready", "True")

    telling.failing = ["p-a-1"]
    degraded = await world.until_condition("Degraded", "True", "WorkersFailing")
    assert "1 of 2 workers fail their requests: p-a-1." in degraded["message"]
    assert condition(await world.pool(), "Available")["status"] == "True"

    telling.failing = []
    await world.until_condition("Degraded", "False")
    await world.pod_status("p-gateway-0", ready=False)
    await world.until_condition("Available", "False", "GatewaysNotReady")
    telling.failing = ["p-a-0", "p-a-1"]
    await world.until_condition("Available", "False", "WorkersFailing")

    telling.failing = []
    await world.until_condition("Degraded", "False")
    await world.pod_status("p-gateway-0", ready=True)
    await world.until_condition("Ready", "True")
    await server.stop(None)
