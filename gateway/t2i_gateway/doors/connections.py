"""What uvicorn leaves open about connections: how many there are, and clients that send no request or read no answer.

uvicorn waits for ever for the first request's headers, and for room in a client's buffers. The application gets the
client's certificate as gRPC would tell of it.
"""

import asyncio
import json
import resource
import ssl
import sys
import uuid
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, cast

import h11
from cryptography import x509
from uvicorn.protocols.http.h11_impl import H11Protocol

from t2i_gateway.doors.errors import HttpRefused, error_body
from t2i_runtime.tls.names import AuthContext, auth_context_of

MAX_CONNECTIONS = 4096
OVER_SHARE = 1.25  # so many more are told to come back; what is beyond is closed at once
FILES_SHARE = 0.5  # of the files that the process may open: workers, the store and classifiers need some too
HEADERS_LIMIT_S = 10.0  # from the connection, or the last answer, to the end of the request's headers
BROKEN_LIMIT_S = 2.0  # in which a client may read that it sent no HTTP
_BROKEN = {
    400: "the request cannot be read: send one of HTTP/1.1",
    431: "the headers are too long: send shorter ones",
    501: "this coding of a body is not known here: use Content-Length, or Transfer-Encoding: chunked",
}
UNREAD_LIMIT_S = 30.0  # for which a client may read nothing of what it was sent


class BoundedConnection(H11Protocol):
    """One connection."""

    _headers_due: asyncio.TimerHandle | None = None
    _reading_due: asyncio.TimerHandle | None = None
    _broken = False  # told so; what still comes is dropped

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        most = most_connections()
        self.app_state = {
            **self.app_state,
            "auth_context": _certificate_reader(transport),
            "connected_s": self.loop.time(),
            "over_limit": len(self.connections) > most,
        }
        if len(self.connections) > OVER_SHARE * most:
            transport.abort()
            return
        self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop(self._headers_due)
        self._stop(self._reading_due)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._broken:
            return
        super().data_received(data)
        if self._request_runs:
            self._stop(self._headers_due)
            self._headers_due = None
        elif self._headers_due is None:
            self._await_headers()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._reading_due = self.loop.call_later(UNREAD_LIMIT_S, self.transport.abort)

    def resume_writing(self) -> None:
        self._stop(self._reading_due)
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._reading_due = self.loop.call_later(UNREAD_LIMIT_S, self.transport.abort)  # of what is still unread

    def send_400_response(self, msg: str) -> None:
        """Of what is no HTTP, as all other errors are told. uvicorn calls it where it caught h11's error."""
        del msg
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()  # in the middle of an answer
            return
        status = _status_of(sys.exception())
        body = json.dumps(error_body(HttpRefused(status, _BROKEN[status], code="invalid_http"))).encode()
        headers = {
            "content-type": "application/json",
            "content-length": str(len(body)),
            "x-request-id": uuid.uuid4().hex,
            "connection": "close",
        }
        answer = h11.Response(status_code=status, headers=[*headers.items()], reason=HTTPStatus(status).phrase)
        for event in (answer, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self._end_after_reading()

    def _end_after_reading(self) -> None:
        """Closed with bytes unread, the connection would be reset, and the answer in it lost."""
        if not self.transport.can_write_eof():  # TLS
            self.transport.close()
            return
        self._broken = True
        self.transport.write_eof()
        self._stop(self._reading_due)
        self._reading_due = self.loop.call_later(BROKEN_LIMIT_S, self.transport.abort)

    @property
    def _request_runs(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _await_headers(self) -> None:
        self._headers_due = self.loop.call_later(HEADERS_LIMIT_S, self.transport.abort)

    @staticmethod
    def _stop(timer: asyncio.TimerHandle | None) -> None:
        if timer is not None:
            timer.cancel()


def _status_of(error: BaseException | None) -> int:
    told = error.error_status_hint if isinstance(error, h11.RemoteProtocolError) else 400
    return told if told in _BROKEN else 400


def most_connections() -> int:
    """Of one gateway's HTTP door."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else min(MAX_CONNECTIONS, int(FILES_SHARE * soft))


def _certificate_reader(transport: asyncio.BaseTransport) -> Callable[[], AuthContext]:
    found: Any = transport.get_extra_info("ssl_object")

    def read() -> AuthContext:
        if found is None:
            return {}
        shown = cast(ssl.SSLObject, found).getpeercert(binary_form=True)
        return auth_context_of(x509.load_der_x509_certificate(shown)) if shown else {}

    return read
