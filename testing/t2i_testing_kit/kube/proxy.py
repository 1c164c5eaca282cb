"""A proxy in front of the API server that counts writes and makes things go wrong on purpose.

It speaks plain HTTP to the program under test and is the administrator upstream. A fault is chosen per request by a
function of the test; killing means: the write is committed, its answer is lost, and nothing gets through any more.
"""

import asyncio
import json
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import aiohttp
from aiohttp import web

from t2i_testing_kit.kube.server import KubeServer

#: What differs between two tries to write the same.
TIMES = re.compile(rb'"(lastTransitionTime|madeAt|resourceVersion)": "[^"]*"')
HOP_HEADERS = {"connection", "transfer-encoding", "content-length", "content-encoding", "host", "accept-encoding"}


class ApiFault(StrEnum):
    """What happens to one request."""

    KILL_AFTER = "killed after the write"
    TIMEOUT_AFTER_COMMIT = "timeout after commit"
    CONFLICT = "409"
    TOO_MANY = "429 with Retry-After"
    SERVER_ERROR = "500"


REFUSALS = {ApiFault.CONFLICT: 409, ApiFault.TOO_MANY: 429, ApiFault.SERVER_ERROR: 500}


@dataclass(frozen=True, slots=True)
class Write:
    """A write that the program under test asked for: the how many-th one, and the how many-th try of it. `order` counts
    every try of every write.
    """

    number: int
    method: str
    path: str
    attempt: int
    order: int


@dataclass(slots=True)
class Record:
    """Objects created and deleted, by path; and every write that got through. Leases are left out, `events` and
    `reads` are only counted. `limits`: by path, how many objects at most the reads of it asked for.
    """

    created: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    writes: list[str] = field(default_factory=list)
    limits: dict[str, set[str]] = field(default_factory=dict)
    events: int = 0
    reads: int = 0


class FaultProxy:
    """An async context manager; `url` goes into a kubeconfig."""

    def __init__(self, server: KubeServer) -> None:
        self._server = server
        self.record = Record()
        self.choose: Callable[[Write], ApiFault | None] = lambda _: None
        self.on_created: Callable[[str], None] = lambda _: None
        self.killed = asyncio.Event()
        self._frozen: set[asyncio.Task[None]] = set()
        self.watch_answer: str | None = None  # 410 as the `status` of the answer, or as an `event` in it
        self.watch_answered = asyncio.Event()  # some watch has got that answer
        self.watch_from: str | None = None  # watches begin at this version, whatever they ask for
        self.hide: Callable[[Any], bool] | None = None  # events of watches that are left out
        self.stale: dict[str, Any] = {}  # path -> an old answer that is given to every GET of it
        self.stale_answers = 0
        self.read_delay_s = 0.0
        self.lease_is_lost = False  # nothing about leases is answered
        self.url = ""
        self._attempts: dict[tuple[str, str, bytes], int] = {}
        self._numbers = 0
        self.asked = 0
        self._watches: set[asyncio.Task[None]] = set()
        self._commits: set[asyncio.Task[web.Response]] = set()

    async def __aenter__(self) -> "FaultProxy":
        context = ssl.create_default_context(cafile=str(self._server.ca_file))
        folder = self._server.authority.folder
        context.load_cert_chain(folder / "admin.crt", folder / "admin.key")
        self._upstream = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context, limit=0))
        app = web.Application(client_max_size=8 << 20)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.drop_watches()
        await self._runner.cleanup()
        await asyncio.gather(*self._commits, return_exceptions=True)
        await self._upstream.close()

    def revive(self) -> None:
        """Let requests through again."""
        self.killed.clear()

    def freeze_watches(self) -> None:
        """Leave every watch that is open now open and silent; later ones are well."""
        self._frozen |= self._watches

    def drop_watches(self) -> None:
        """Cut every watch in the middle."""
        for task in self._watches:
            task.cancel()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if self.killed.is_set() or (self.lease_is_lost and "/leases" in request.path):
            return self._cut(request)
        if request.query.get("watch") == "true":
            return await self._watch(request)
        body = await request.read()
        if request.method == "GET" or "/leases" in request.path or "/events" in request.path:
            if request.method == "GET":
                self.record.reads += 1
                self.record.limits.setdefault(request.path, set()).add(request.query.get("limit", "no limit"))
                await asyncio.sleep(self.read_delay_s)
                if request.path in self.stale:
                    self.stale_answers += 1
                    return web.json_response(self.stale[request.path])
            self.record.events += request.method == "POST" and "/events" in request.path
            return await self._forward(request, body)
        return await self._write(request, body)

    async def _write(self, request: web.Request, body: bytes) -> web.StreamResponse:
        mark = (request.method, request.path, TIMES.sub(b"", body))
        attempt = self._attempts[mark] = self._attempts.get(mark, 0) + 1
        self.asked += 1
        if attempt == 1:
            self._numbers += 1
        fault = self.choose(Write(self._numbers, request.method, request.path, attempt, self.asked))
        refused = REFUSALS.get(fault) if fault else None
        if refused is not None:
            headers = {"Retry-After": "1"} if refused == 429 else {}
            return web.json_response({"message": f"injected {refused}"}, status=refused, headers=headers)
        answer = await self._commit(request, body)
        if fault is ApiFault.KILL_AFTER:
            self.killed.set()
            self.drop_watches()
            return self._cut(request)
        if fault is ApiFault.TIMEOUT_AFTER_COMMIT:
            await asyncio.Event().wait()  # ends when the client gives up
        return answer

    async def _commit(self, request: web.Request, body: bytes) -> web.Response:
        """Forward and count. A write on its way is committed whether its writer lives or not: it is counted, too."""

        async def commit() -> web.Response:
            answer = await self._forward(request, body)
            self._count(request, answer.status)
            return answer

        task = asyncio.create_task(commit())
        self._commits.add(task)
        task.add_done_callback(self._commits.discard)
        return await asyncio.shield(task)

    def _count(self, request: web.Request, status: int) -> None:
        self.record.writes.append(f"{request.method} {request.path}")
        if status == 201:
            self.record.created.append(request.path)
            self.on_created(request.path)
        if request.method == "DELETE" and status in (200, 202):
            self.record.deleted.append(request.path)

    def _cut(self, request: web.Request) -> web.Response:
        """Not even a status line."""
        if request.transport is not None:
            request.transport.abort()
        return web.Response()

    async def _forward(self, request: web.Request, body: bytes) -> web.Response:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP_HEADERS}
        url = self._server.url + str(request.rel_url)
        async with self._upstream.request(request.method, url, data=body or None, headers=headers) as answer:
            content = await answer.read()
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in HOP_HEADERS}
            return web.Response(status=answer.status, body=content, headers=kept)

    @property
    def _past(self) -> dict[str, str]:
        return {"resourceVersion": self.watch_from or ""}

    async def _relay(
        self, answer: aiohttp.ClientResponse, response: web.StreamResponse, task: asyncio.Task[Any]
    ) -> None:
        """Whole events, one a line."""
        rest = b""
        async for chunk in answer.content.iter_any():
            if task in self._frozen:
                await asyncio.Event().wait()  # open, and silent for ever
            lines, newline, rest = (rest + chunk).rpartition(b"\n")
            shown = [line for line in lines.split(b"\n") if line and not self._is_hidden(line)]
            if newline and shown:
                await response.write(b"\n".join(shown) + b"\n")

    def _is_hidden(self, line: bytes) -> bool:
        return self.hide is not None and self.hide(json.loads(line))

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        if self.watch_answer is not None:
            self.watch_answered.set()
            gone = {"kind": "Status", "status": "Failure", "reason": "Expired", "code": 410, "message": "injected"}
            if self.watch_answer == "status":
                return web.json_response(gone, status=410)
            return web.Response(text=json.dumps({"type": "ERROR", "object": gone}) + "\n")
        task = asyncio.current_task()
        assert task is not None
        self._watches.add(task)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        try:
            url = request.rel_url if self.watch_from is None else request.rel_url.update_query(self._past)
            async with self._upstream.get(f"{self._server.url}{url}", headers={"Accept": "application/json"}) as answer:
                response.set_status(answer.status)
                await response.prepare(request)
                await self._relay(answer, response, task)
        except (asyncio.CancelledError, ConnectionError, aiohttp.ClientError):
            return self._cut(request)
        finally:
            self._watches.discard(task)
        return response
