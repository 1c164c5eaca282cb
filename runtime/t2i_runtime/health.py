"""grpc.health.v1 of a process: what probes ask, for the server as a whole and for its one service alike."""

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

HEALTH_SERVICE = health.SERVICE_NAME
_STATUSES = {True: health_pb2.HealthCheckResponse.SERVING, False: health_pb2.HealthCheckResponse.NOT_SERVING}


class ServerHealth:
    """One verdict, shown on as many servers as wanted: that of clients, and a plaintext one for the kubelet."""

    def __init__(self, service: str) -> None:
        self._names = ("", service)
        self._servicer = health.aio.HealthServicer()

    def add_to(self, *servers: grpc.aio.Server) -> None:
        for server in servers:
            health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    async def show(self, serving: bool) -> None:
        for name in self._names:
            await self._servicer.set(name, _STATUSES[serving])

    async def show_alive(self, name: str) -> None:
        """Under this name, say that the process answers, whether it serves or not."""
        await self._servicer.set(name, _STATUSES[True])
