"""The HTTP door's server: uvicorn on the gateway's own event loop, which opens, serves and closes with it."""

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from t2i_gateway.doors.connections import BoundedConnection

KEEP_ALIVE_S = 75  # longer than most load balancers keep idle connections
CLOSE_GRACE_S = 2


class HttpServer(uvicorn.Server):
    """Leaves signals to the gateway."""

    def __init__(self, app: ASGIApp, listener: socket.socket, tls: ssl.SSLContext | None) -> None:
        config = uvicorn.Config(
            app,
            http=BoundedConnection,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=CLOSE_GRACE_S,
        )
        config.load()
        config.ssl = tls
        super().__init__(config)
        self._listener = listener

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def run_until_closed(self) -> None:
        """Serve until `close`; then what runs gets a moment to end."""
        await self.serve([self._listener])

    def close(self) -> None:
        self.should_exit = True
