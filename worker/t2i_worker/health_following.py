"""The health of the process follows the engine's readiness: in gRPC health, /readyz and /livez."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from t2i_policy.readiness import Readiness
from t2i_worker.jobs import Engine

log = logging.getLogger(__name__)
LOOK_EVERY_S = 1.0  # the engine announces changes, but not that a step takes too long
StartResponse = Callable[[str, list[tuple[str, str]]], Any]
Wsgi = Callable[[dict[str, Any], Any], Iterable[bytes]]


async def follow_health(engine: Engine, say: Callable[[bool], Awaitable[None]]) -> Readiness:
    """Say now and at every change whether the engine takes requests. Return when the process must end."""
    said: bool | None = None
    while True:
        changed = asyncio.ensure_future(engine.changed())
        try:
            await asyncio.sleep(0)  # let `changed` begin to listen before readiness is read, or a change is missed
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
    """Add /livez and /readyz to a metrics app. While `readiness` returns None the worker warms up: alive, not ready."""

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
