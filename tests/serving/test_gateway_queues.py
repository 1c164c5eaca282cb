"""A worker passes on what gateways tell of their queues: the newest of each, with its age, for a few seconds."""

import pytest

from t2i_gateway.workers.other_gateways import OtherGateways
from t2i_policy.queue import MAX_TOLD, FairQueue, WaitingRequest
from t2i_policy.request.other_gateways import KEPT_S
from t2i_protos.v1 import worker_pb2
from t2i_worker.gateway_queues import MAX_GATEWAYS, GatewayQueues


def request(gateway: str, requests: int) -> worker_pb2.WorkerGenerateRequest:
    return worker_pb2.WorkerGenerateRequest(
        gateway_queue=worker_pb2.GatewayQueue(gateway=gateway, requests=requests, steps=50 * requests)
    )


def test_newest_of_each_gateway_is_told_for_a_while() -> None:
    """Older ones would make the others wait for nobody."""
    now_s = 100.0
    queues = GatewayQueues(lambda: now_s)
    queues.take_in(worker_pb2.WorkerGenerateRequest())  # of an older version
    queues.take_in(request("x" * 65, 1))  # no name of a gateway
    queues.take_in(request("a", 7))
    queues.take_in(request("b", 1))
    now_s += 2.0
    queues.take_in(request("a", 3))
    assert {(one.gateway, one.requests, one.age_ms) for one in queues.current()} == {("a", 3, 0), ("b", 1, 2000)}
    now_s += KEPT_S - 1.0
    assert [one.gateway for one in queues.current()] == ["a"]


def test_names_without_end_do_not_fill_the_memory() -> None:
    """Gateways that start anew have new names."""
    queues = GatewayQueues(lambda: 0.0)
    for number in range(3 * MAX_GATEWAYS):
        queues.take_in(request(f"gateway-{number}", 1))
    assert len(queues.current()) == MAX_GATEWAYS


def test_tenants_without_end_do_not_fill_the_memory() -> None:
    """No gateway tells more than some of them, and the rest as one."""
    queues = GatewayQueues(lambda: 0.0)
    told = request("a", 1)
    told.gateway_queue.by_tenant.extend(worker_pb2.TenantSteps(tenant=number, steps=1) for number in range(1000))
    queues.take_in(told)
    assert len(queues.current()[0].by_tenant) == MAX_TOLD + 1


@pytest.mark.parametrize("tenants", [0, 1, 2, 40])
async def test_queue_by_tenant_reaches_the_other_gateway(tenants: int) -> None:
    """As it was told: by one gateway with a request, by the worker with its load."""
    sender, receiver, worker = OtherGateways(), OtherGateways(), GatewayQueues(lambda: 0.0)
    queue, empty = FairQueue[WaitingRequest]({}), FairQueue[WaitingRequest]({})
    for number in range(tenants):
        queue.add(WaitingRequest(tenant=f"t{number}", deadline_s=1.0, number=number, steps=10 + number))
    for gateway, waiting in ((sender, queue), (receiver, empty)):
        sent = worker_pb2.WorkerGenerateRequest()
        gateway.tell(sent, waiting, 2.0)
        worker.take_in(worker_pb2.WorkerGenerateRequest.FromString(sent.SerializeToString()))
    load = worker_pb2.WorkerLoad(gateway_queues=worker.current())
    receiver.take_in(worker_pb2.WorkerLoad.FromString(load.SerializeToString()))
    heard = receiver.queues("")
    assert heard is not None
    assert heard.by_tenant == ((queue.steps_by_tenant(),) if tenants else ())
    assert (heard.requests, heard.steps, heard.gateways) == (queue.count, queue.steps, min(tenants, 1))
