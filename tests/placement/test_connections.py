"""Channels of a gateway to one address: real gRPC over loopback."""

from typing import Any

import grpc

from t2i_gateway.workers.connection import CHANNEL_OPTIONS
from t2i_protos.v1 import worker_pb2, worker_pb2_grpc
from t2i_runtime.tls.transport import channel_opener


class Described(worker_pb2_grpc.WorkerServicer):
    """A worker whose name is the address that it is called from."""

    async def Describe(self, request: worker_pb2.DescribeRequest, context: Any) -> worker_pb2.WorkerDescription:
        return worker_pb2.WorkerDescription(name=context.peer())


async def test_link_begun_anew_has_another_connection() -> None:
    """gRPC lets channels of one target share a connection. A link is begun anew because its connection is dead, so the
    new one must not get it, while the old one ends what runs on it.
    """
    server = grpc.aio.server()
    worker_pb2_grpc.add_WorkerServicer_to_server(Described(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    open_channel = channel_opener(None, "", CHANNEL_OPTIONS)
    try:
        async with open_channel(f"127.0.0.1:{port}") as old, open_channel(f"127.0.0.1:{port}") as new:
            names = [
                (await worker_pb2_grpc.WorkerStub(channel).Describe(worker_pb2.DescribeRequest(), timeout=60)).name
                for channel in (old, old, new)
            ]
    finally:
        await server.stop(None)
    assert names[0] == names[1] != names[2]
