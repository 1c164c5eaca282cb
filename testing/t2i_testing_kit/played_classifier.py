"""A little HTTP server in a thread that plays a safety classifier: it allows, refuses, fails or hangs."""

import base64
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class PlayedClassifier(ThreadingHTTPServer):
    """Prompts that contain one of `BEHAVIOURS` are answered so; images too, when `image_behaviour` says so."""

    daemon_threads = True

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        """With a `context` it speaks HTTPS."""
        super().__init__(("127.0.0.1", 0), _Handler)
        self._scheme, self._host = ("http", "127.0.0.1") if context is None else ("https", "localhost")
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_side=True)
        self.heard: list[dict[str, Any]] = []
        self.headers_heard: list[dict[str, str]] = []
        self.image_behaviour = "allow"
        self.may_answer = threading.Event()
        self.hangs = threading.Event()

    @property
    def url(self) -> str:
        return f"{self._scheme}://{self._host}:{self.server_port}/check"

    @property
    def images(self) -> list[bytes]:
        """The files that were shown to it."""
        return [base64.b64decode(one["image"]["data"]) for one in self.heard if "image" in one]

    def heard_prompt(self, text: str) -> bool:
        return any(text in one.get("prompt", "") for one in self.heard)


class _Handler(BaseHTTPRequestHandler):
    server: PlayedClassifier
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.heard.append(question)
        self.server.headers_heard.append(dict(self.headers))
        behaviour = self.server.image_behaviour
        if "prompt" in question:
            behaviour = next((name for name in BEHAVIOURS if name in question["prompt"]), "allow")
        if behaviour == "hang":
            self.server.hangs.set()
            self.server.may_answer.wait(60)
        status, body = BEHAVIOURS[behaviour]
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def _answer(**values: object) -> bytes:
    return json.dumps(values).encode()


BEHAVIOURS: dict[str, tuple[int, bytes]] = {
    "forbid": (200, _answer(allowed=False, category="violence", reason="not \x1b[31mhere", extra=1)),
    "break": (500, b"Traceback"),
    "hang": (200, _answer(allowed=True)),
    "garble": (200, b"<html>"),
    "mislead": (200, _answer(allowed="yes")),
    "flood": (200, _answer(allowed=True, reason="x" * (1 << 20))),
    "redirect": (302, b""),
    "nest": (200, b"[" * 20_000),
    "repeat": (200, b'{"allowed": false, "allowed": true}'),
    "allow": (200, _answer(allowed=True)),
}
FAILING = ("break", "garble", "mislead", "flood", "redirect", "nest", "repeat")


@contextmanager
def played_classifier(context: ssl.SSLContext | None = None) -> Iterator[PlayedClassifier]:
    server = PlayedClassifier(context)
    thread = threading.Thread(target=server.serve_forever, name="classifier")
    thread.start()
    try:
        yield server
    finally:
        server.may_answer.set()
        server.shutdown()
        thread.join()
        server.server_close()


def add_safety(pool_file: Path, url: str, *, further: str = "", image: bool = True) -> None:
    """Let a pool file, whose last part is its spec, ask this classifier."""
    part = f'{{url: "{url}"{further}}}'
    places = [f"prompt: {part}", *([f"image: {part}"] if image else [])]
    with pool_file.open("a") as file:
        file.write(f"  safety: {{{', '.join(places)}}}\n")
