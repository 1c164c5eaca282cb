"""The HTTP application: routes, an id for every answer, errors in OpenAI's shape, and the count of all of it."""

import asyncio
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from t2i_api.pool import Pool
from t2i_gateway.doors.errors import (
    INVALID_REQUEST,
    SERVER_ERROR,
    UNAVAILABLE_RETRY_AFTER_S,
    HttpRefused,
    error_body,
    error_headers,
    status_of,
)
from t2i_gateway.doors.images import EDITS, GENERATIONS, IDEMPOTENCY_KEY, ImagesRoute
from t2i_gateway.doors.models import check_model, model_card, model_names
from t2i_gateway.doors.openapi import openapi_document
from t2i_gateway.doors.reading import EarlyAnswer
from t2i_gateway.identity import Identities
from t2i_gateway.intake import Intake, counted
from t2i_gateway.metrics import GatewayMetrics
from t2i_gateway.request import MAX_REQUEST_ID_CHARACTERS
from t2i_gateway.results import ResultStore
from t2i_gateway.spans import door_span, set_status
from t2i_gateway.status import SHOWN_ERRORS

GENERATIONS_PATH, EDITS_PATH = TRACED = ("/v1/images/generations", "/v1/images/edits")
OTHER_ROUTE = "other"
REQUEST_ID = b"x-request-id"
MAX_CONNECTION_AGE_S = 600  # as with gRPC: a client whose certificate was withdrawn is gone by then
UNREAD = (408, 413)  # the rest of the body is still to come, so the connection is of no more use
CLOSE = {"connection": "close"}
COME_BACK = {"retry-after": f"{UNAVAILABLE_RETRY_AFTER_S:.0f}"}


@dataclass(frozen=True, slots=True)
class HttpDoor:
    """What the application works with. `is_ready`: whether a request could be served now. `results` None: no links."""

    pool: Pool
    intake: Intake
    identities: Identities
    metrics: GatewayMetrics
    is_ready: Callable[[], bool]
    results: ResultStore | None = None


def make_app(door: HttpDoor, more: Sequence[Route] = ()) -> ASGIApp:
    """The whole application. `more`: the playground's routes."""
    began = int(time.time())
    parts = (door.pool, door.intake, door.identities, door.metrics, door.results)
    names = model_names(door.pool)
    document = openapi_document(door.pool)

    def known(request: Request) -> None:
        with counted(door.metrics, "Models"):
            door.identities.tenant_of(request.headers.items(), request.state.auth_context)

    async def models(request: Request) -> Response:
        known(request)
        return JSONResponse({"object": "list", "data": [model_card(name, began, door.pool) for name in names]})

    async def model(request: Request) -> Response:
        known(request)
        name = request.path_params["name"]
        check_model(name, door.pool)
        return JSONResponse(model_card(name, began, door.pool))

    async def openapi(_: Request) -> Response:
        return JSONResponse(document)

    async def healthz(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(_: Request) -> Response:
        ready = door.is_ready()
        if ready:
            return JSONResponse({"status": "ready"})
        return JSONResponse({"status": "not ready"}, 503, COME_BACK)

    app = Starlette(
        routes=[
            Route(GENERATIONS_PATH, ImagesRoute(GENERATIONS, *parts), methods=["POST"]),
            Route(EDITS_PATH, ImagesRoute(EDITS, *parts), methods=["POST"]),
            Route("/v1/models", models),
            Route("/v1/models/{name:path}", model),
            Route("/openapi.json", openapi),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            *more,
        ],
        exception_handlers={
            **dict.fromkeys(SHOWN_ERRORS, _tell),
            HTTPException: _tell_route,
            Exception: _tell_fault,
        },
    )
    app.router.redirect_slashes = False
    return Counted(app, door.metrics)


async def _tell(request: Request, error: Exception) -> Response:
    assert isinstance(error, SHOWN_ERRORS)  # noqa: S101 - these are what it is registered for
    status = status_of(error)
    headers = {**error_headers(error), **(CLOSE if status in UNREAD else {})}
    answer = EarlyAnswer if getattr(request.state, "body_left", False) else JSONResponse
    return answer(error_body(error), status, headers)


async def _two_lengths(scope: Scope, receive: Receive, send: Send) -> None:
    """Proxies differ in which length counts, so one could see another request in the rest: nothing more is read."""
    text = "say the body's length once: Content-Length, or Transfer-Encoding: chunked in HTTP/1.1"
    answer = JSONResponse(error_body(HttpRefused(400, text, code="invalid_framing")), 400, CLOSE)
    await answer(scope, receive, send)


async def _too_many(scope: Scope, receive: Receive, send: Send) -> None:
    text = "this gateway has too many connections; try again"
    answer = _plain_error(503, text, "too_many_connections", {**COME_BACK, **CLOSE})
    await answer(scope, receive, send)


async def _tell_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    if error.status_code == 405:
        text = f"{request.method} is not possible here: use {(error.headers or {}).get('Allow', 'another method')}"
        return _plain_error(405, text, "method_not_allowed", error.headers)
    text = "there is nothing at this address: GET /openapi.json lists what there is"
    return _plain_error(error.status_code, text, "unknown_url", error.headers)


async def _tell_fault(_: Request, __: Exception) -> Response:
    return _plain_error(500, "the gateway failed; its log says why", "internal_error", None)


def _plain_error(status: int, message: str, code: str, headers: Any) -> Response:
    kind = INVALID_REQUEST if status < 500 else SERVER_ERROR
    body = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    return JSONResponse(body, status, headers)


class Counted:
    """Every request gets an id, which its answer names, and is counted by route and by status."""

    def __init__(self, app: ASGIApp, metrics: GatewayMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = _request_id(scope)
        scope["state"] = {**scope.get("state", {}), "request_id": request_id, "status": 500}

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                old = asyncio.get_running_loop().time() - scope["state"]["connected_s"] > MAX_CONNECTION_AGE_S
                own = [(REQUEST_ID, request_id.encode()), *([(b"connection", b"close")] if old else [])]
                message["headers"] = [*message.get("headers", ()), *own]
                scope["state"]["status"] = message["status"]
            await send(message)

        app = self._app
        if scope["state"].get("over_limit"):
            app = _too_many
        elif _says_two_lengths(scope):
            app = _two_lengths
        try:
            if scope["method"] != "POST" or scope["path"] not in TRACED:
                await app(scope, receive, named)
                return
            with door_span(f"POST {scope['path']}", Request(scope).headers.items(), _asked(scope)) as span:
                try:
                    await app(scope, receive, named)
                finally:
                    set_status(span, scope["state"]["status"])
        finally:
            route = getattr(scope.get("route"), "path", OTHER_ROUTE)
            self._metrics.http_requests.labels(route, str(scope["state"]["status"])).inc()


def _asked(scope: Scope) -> dict[str, str]:
    return {
        "http.request.method": "POST",
        "http.route": scope["path"],
        "url.path": scope["path"],
        "url.scheme": scope["scheme"],
    }


def _says_two_lengths(scope: Scope) -> bool:
    """HTTP/1.0 knows no chunks, so a proxy that speaks it does not see them."""
    names = {name for name, _ in scope["headers"]}
    return b"transfer-encoding" in names and (b"content-length" in names or scope["http_version"] == "1.0")


def _request_id(scope: Scope) -> str:
    """The client's own, if it is one that can be kept."""
    given = Request(scope).headers.get(IDEMPOTENCY_KEY, "")
    usable = given.isascii() and given.isprintable() and 0 < len(given) <= MAX_REQUEST_ID_CHARACTERS
    return given if usable else uuid.uuid4().hex
