"""Where servers listen. `[::]:PORT` takes IPv4 and IPv6, also in clusters of one family, and on kernels without IPv6.

gRPC does that by itself. Python's servers do not: asyncio's take IPv6 alone, `http.server` takes what the kernel's
default says, and neither goes on without IPv6. So sockets for HTTP are made here.
"""

import errno
import socket
import threading
from collections.abc import Callable
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler

import grpc
from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from t2i_runtime.errors import AddressUnusable

ANY = ("", "::")
NO_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
BACKLOG = 128


def bind_server(server: grpc.aio.Server, listen: str, credentials: grpc.ServerCredentials | None = None) -> int:
    """Open a port of a gRPC server, in clear without credentials; returns its number.

    Raises:
        AddressUnusable: it cannot be listened on.
    """
    try:
        if credentials is None:
            return server.add_insecure_port(listen)
        return server.add_secure_port(listen, credentials)
    except RuntimeError as error:
        raise AddressUnusable(f"cannot listen on {listen}: the port is in use, or the address is not ours") from error


def listening_socket(listen: str) -> socket.socket:
    """A TCP socket that listens on HOST:PORT; an IPv6 host is in brackets.

    Raises:
        AddressUnusable: it cannot be listened on.
    """
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    try:
        if host in ANY:
            return _anywhere(int(port))
        found = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        return _bound(found[0][0], host, int(port))
    except (ValueError, OverflowError) as error:
        raise AddressUnusable(f"cannot listen on {listen}: it must be HOST:PORT, as in 127.0.0.1:9090") from error
    except OSError as error:
        raise AddressUnusable(f"cannot listen on {listen}: {error.strerror}") from error


def _anywhere(port: int) -> socket.socket:
    try:
        return _bound(socket.AF_INET6, "::", port)
    except OSError as error:
        if error.errno not in NO_IPV6:
            raise
        return _bound(socket.AF_INET, "0.0.0.0", port)  # noqa: S104 - what [::] means on a kernel without IPv6


def _bound(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """A scrape is no news."""


def serve_metrics(listen: str, registry: CollectorRegistry, wrap: Callable[[Any], Any] = lambda app: app) -> int:
    """Answer /metrics from a thread of its own, as long as the process lives; returns the port.

    `wrap` makes a WSGI application of the one that answers it, to answer more.

    Raises:
        AddressUnusable: it cannot be listened on.
    """
    listener = listening_socket(listen)
    host, port = listener.getsockname()[:2]
    server = ThreadingWSGIServer((host, port), _Silent, bind_and_activate=False)
    server.socket.close()
    server.socket, server.server_name, server.server_port = listener, host, port
    server.setup_environ()
    server.set_app(wrap(make_wsgi_app(registry)))
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return int(port)
