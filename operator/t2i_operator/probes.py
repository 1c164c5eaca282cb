"""HTTP for the kubelet and Prometheus: /livez and /readyz on one address, /metrics on another.

Served by the same event loop that reconciles, so a loop that stands still does not answer and is restarted.
"""

import asyncio
from collections.abc import Callable

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest

from t2i_runtime.listening import listening_socket


class Probes:
    """`check` says why the process should be restarted, None if it is well. A standby operator is well and ready."""

    def __init__(self, metrics_listen: str, health_listen: str, registry: CollectorRegistry) -> None:
        self._metrics_listen = metrics_listen
        self._health_listen = health_listen
        self._registry = registry
        self.check: Callable[[], str | None] = lambda: None
        self.ports: dict[str, int] = {}
        self.serving = asyncio.Event()

    async def serve(self) -> None:
        """Until cancelled."""
        runners = [
            await self._start("health", self._health_listen, {"/livez": self._live, "/readyz": self._ready}),
            await self._start("metrics", self._metrics_listen, {"/metrics": self._metrics}),
        ]
        self.serving.set()
        try:
            await asyncio.Event().wait()
        finally:
            for runner in runners:
                await runner.cleanup()

    async def _start(self, name: str, listen: str, routes: dict[str, Callable[..., object]]) -> web.AppRunner:
        app = web.Application()
        for path, handler in routes.items():
            app.router.add_get(path, handler)  # type: ignore[arg-type]
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        await web.SockSite(runner, listening_socket(listen)).start()
        self.ports[name] = runner.addresses[0][1]
        return runner

    async def _live(self, _: web.Request) -> web.Response:
        complaint = self.check()
        return web.Response(text=complaint or "ok", status=200 if complaint is None else 503)

    async def _ready(self, _: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": "text/plain; version=0.0.4"})
