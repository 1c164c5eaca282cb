"""The HTTP door in this process, over a director that a test plays."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol, cast

from prometheus_client import CollectorRegistry

from t2i_api.parse import parse_pool
from t2i_gateway.director import Director
from t2i_gateway.doors.app import HttpDoor, make_app
from t2i_gateway.doors.server import HttpServer
from t2i_gateway.held_requests import MAX_HELD_BYTES
from t2i_gateway.identity import Identities
from t2i_gateway.intake import Intake
from t2i_gateway.metrics import GatewayMetrics
from t2i_protos.v1 import gateway_pb2
from t2i_runtime.listening import listening_socket

WITHIN_S = 60.0
POOL = """
apiVersion: t2iserving.dev/v1alpha1
kind: T2IServingPool
metadata: {name: p}
spec:
  model: {source: "builtin://scenes"}
  workerGroups: [{name: a, workers: 1}]
"""


class PlayedDirector(Protocol):
    def generate(self, *_: Any) -> AsyncIterator[gateway_pb2.GenerateEvent]: ...


@dataclass(frozen=True, slots=True)
class ServedDoor:
    port: int
    intake: Intake

    async def connect(self, small_buffers: bool = False) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A client that takes in little ahead of what it reads, and very little with small buffers of the system."""
        connection = socket.socket()
        connection.setblocking(False)
        if small_buffers:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", self.port))
        return await asyncio.open_connection(sock=connection, limit=1024)

    async def answer_to(self, sent: bytes) -> bytes:
        """All that comes until the server closes."""
        reader, writer = await self.connect()
        writer.write(sent)
        try:
            return await read_all(reader)
        finally:
            writer.close()


@asynccontextmanager
async def served(director: PlayedDirector, max_held_bytes: int = MAX_HELD_BYTES) -> AsyncIterator[ServedDoor]:
    """A server; in the end nothing is held any more."""
    pool, metrics = parse_pool(POOL), GatewayMetrics(CollectorRegistry())
    intake = Intake(cast(Director, director), pool, metrics, max_held_bytes)
    door = HttpDoor(pool, intake, Identities("None"), metrics, lambda: True)
    listener = listening_socket("127.0.0.1:0")
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
    server = HttpServer(make_app(door), listener, None)
    running = asyncio.create_task(server.run_until_closed())
    try:
        yield ServedDoor(server.port, intake)
    finally:
        server.close()
        await running
    assert intake.held_bytes == 0


def head(length: int) -> bytes:
    """Of a request with a body of this length."""
    lines = ["POST /v1/images/generations HTTP/1.1", "host: a", "content-type: application/json"]
    return "\r\n".join([*lines, f"content-length: {length}", "", ""]).encode()


def post(body: bytes) -> bytes:
    return head(len(body)) + body


async def read_all(reader: asyncio.StreamReader) -> bytes:
    """Until the server closes; a reset counts as closing."""
    async with asyncio.timeout(WITHIN_S):
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""
