"""Health of the process follows the engine: gRPC health, /readyz and /livez say what the engine's readiness says."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from t2i_policy.readiness import Readiness
from t2i_worker.jobs import Engine

log = logging.getLogger(__name__)
LOOK_EVERY_S = 1.0  # changes are told; that a step takes too long is seen by looking
StartResponse = Callable[[str, list[tuple[str, str]]], Any]
Wsgi = Callable[[dict[str, Any], Any], Iterable[bytes]]


async def follow_health(engine: Engine, say: Callable[[bool], Awaitable[None]]) -> Readiness:
    """Say whether the engine takes requests, at once and at every change. Returns when the process must end."""
    said: bool | None = None
    while True:
        changed = asyncio.ensure_future(engine.changed())
        try:
            await asyncio.sleep(0)  # it listens now, before the verdict is read: no change is missed
            now = engine.readiness()
            if now.ready is not said:
                said = now.ready
                log.log(logging.INFO if said else logging.WARNING, "health: %s", now.reason)
                await say(said)
            if now.lost:
                return now
            await asyncio.wait([changed], timeout=LOOK_EVERY_S)
        finally:
            changed.cancel()


def with_probes(metrics: Wsgi, readiness: Callable[[], Readiness | None]) -> Wsgi:
    """Answer /livez and /readyz too. `readiness` is None while the model warms up: alive, not ready."""

    def app(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path not in ("/livez", "/readyz"):
            return metrics(environ, start_response)
        now = readiness()
        if now is None:
            well, text = path == "/livez", "WarmingUp"
        else:
            well, text = now.alive if path == "/livez" else now.ready, now.reason.value
        start_response("200 OK" if well else "503 Service Unavailable", [("Content-Type", "text/plain")])
        return [text.encode()]

    return app
