"""Reading a request's body: bounded in bytes and in time. And noticing that the client has left."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from t2i_gateway.doors.errors import ClientGone, HttpRefused

BODY_LIMIT_S = 10.0
BYTES_PER_S = 256 << 10  # slower uploads of images are given up
T = TypeVar("T")


def check_type(request: Request, media_type: str) -> None:
    """Raises:
    HttpRefused: the body is of another type.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != media_type:
        raise HttpRefused(415, f"send the body with Content-Type: {media_type}", code="unsupported_media_type")


def check_length(request: Request, most_bytes: int) -> None:
    """Look at the length before the body comes: it may never come, or take its time.

    Raises:
        HttpRefused: it is too long. The rest of the request is still to be read.
    """
    told = request.headers.get("content-length", "")
    if told.isdecimal() and int(told) > most_bytes:
        request.state.body_left = True
        raise too_large(most_bytes)


class EarlyAnswer(JSONResponse):
    """An answer before the body has come. What still comes is read and dropped for a while. Most clients send all
    before they listen: they would find the connection broken instead of the answer.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        with suppress(TimeoutError):
            async with asyncio.timeout(BODY_LIMIT_S):
                while (await receive()).get("more_body"):
                    pass
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def told_bytes(request: Request, most_bytes: int) -> int:
    """The length that the client tells, up to `most_bytes`; that many if it tells none."""
    told = request.headers.get("content-length", "")
    return min(int(told), most_bytes) if told.isdecimal() else most_bytes


async def read_body(request: Request, most_bytes: int) -> bytes:
    """Raises:
    HttpRefused: it is too long, or comes too slowly.
    ClientGone: the client left.
    """
    body, length = bytearray(), 0
    limit_s = BODY_LIMIT_S + most_bytes / BYTES_PER_S if most_bytes > BYTES_PER_S else BODY_LIMIT_S
    try:
        async with asyncio.timeout(limit_s):
            async for part in request.stream():
                length += len(part)  # what is too long is read and dropped: most clients send all before they listen
                if length <= most_bytes:
                    body += part
    except TimeoutError:
        if length > most_bytes:
            raise too_large(most_bytes) from None
        raise HttpRefused(408, f"the body did not come within {limit_s:.0f} seconds", code="body_timeout") from None
    except ClientDisconnect:
        raise ClientGone from None
    if length > most_bytes:
        raise too_large(most_bytes)
    return bytes(body)


def too_large(most_bytes: int) -> HttpRefused:
    return HttpRefused(413, f"the body must be at most {most_bytes >> 10} KiB", code="body_too_large")


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The work's result. It is cancelled when the client leaves. The body must have been read.

    Raises:
        ClientGone: the client left first.
    """
    doing, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_left(receive))
    try:
        await asyncio.wait((doing, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            raise ClientGone
        return doing.result()
    finally:
        doing.cancel()
        leaving.cancel()
        await asyncio.gather(doing, leaving, return_exceptions=True)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
