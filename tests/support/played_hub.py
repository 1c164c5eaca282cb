"""A model hub on loopback, as its client speaks to it: listing and files of one repository. Not `up`: it answers 503.
It is also a proxy to every hub that is asked for in clear, and speaks TLS if it is given a context.

Played because no hub can be reached from tests; the client is the real one.
"""

import hashlib
import json
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

COMMIT = "89abcdef0123456789abcdef0123456789abcdef"


class PlayedHub(ThreadingHTTPServer):
    """`asked` holds method and path of every request, `hosts` whom it was for, `tokens` who asked."""

    daemon_threads = True

    def __init__(self, repository: str, files: Mapping[str, bytes], tls: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.scheme = "http" if tls is None else "https"
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True)
        self.repository = repository
        self.files = dict(files)
        self.up = True
        self.broken_off: set[str] = set()  # files whose transfer ends early
        self.asked: list[tuple[str, str]] = []
        self.hosts: set[str] = set()
        self.tokens: set[str] = set()

    @property
    def endpoint(self) -> str:
        """For HF_ENDPOINT."""
        return f"{self.scheme}://localhost:{self.server_address[1]}"

    @property
    def fetched(self) -> set[str]:
        """Files whose content was asked for."""
        return {path.partition(f"/resolve/{COMMIT}/")[2] for method, path in self.asked if method == "GET"} - {""}


class _Handler(BaseHTTPRequestHandler):
    server: PlayedHub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, format: str, *args: object) -> None:
        """Not to the test's output."""

    def _answer(self, with_body: bool) -> None:
        hub, path = self.server, urlsplit(self.path).path
        hub.asked.append((self.command, path))
        hub.hosts.add(self.headers.get("Host", ""))
        hub.tokens.add(self.headers.get("Authorization", ""))
        if not hub.up:
            return self._send(503, b"", with_body)
        name = path.partition(f"/{hub.repository}/resolve/{COMMIT}/")[2]
        if name in hub.files:
            return self._send(200, hub.files[name], with_body, short=name in hub.broken_off)
        if path.startswith(f"/api/models/{hub.repository}/tree/"):
            tree = [self._entry(name, data) for name, data in sorted(hub.files.items())]
            return self._send(200, json.dumps(tree).encode(), with_body)
        if path in (f"/api/models/{hub.repository}", f"/api/models/{hub.repository}/revision/main"):
            siblings = [{"rfilename": name} for name in sorted(hub.files)]
            facts = {"id": hub.repository, "modelId": hub.repository, "sha": COMMIT, "siblings": siblings}
            return self._send(200, json.dumps(facts).encode(), with_body)
        if path == f"/api/models/{hub.repository}/revision/{COMMIT}":
            facts = {"id": hub.repository, "modelId": hub.repository, "sha": COMMIT, "siblings": []}
            return self._send(200, json.dumps(facts).encode(), with_body)
        return self._send(404, b"", with_body)

    @staticmethod
    def _entry(name: str, data: bytes) -> dict[str, object]:
        return {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}

    def _send(self, status: int, body: bytes, with_body: bool, short: bool = False) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if with_body:
            self.wfile.write(body[: len(body) // 2] if short else body)
        if short:
            self.close_connection = True


@contextmanager
def played_hub(repository: str, files: Mapping[str, bytes], tls: ssl.SSLContext | None = None) -> Iterator[PlayedHub]:
    """Serve one repository."""
    hub = PlayedHub(repository, files, tls)
    thread = threading.Thread(target=hub.serve_forever, name="hub", daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join(5)
