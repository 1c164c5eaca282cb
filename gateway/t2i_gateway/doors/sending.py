"""Sending answers to clients that may read slowly. Nothing is drawn later for it, and what they leave unread counts.

An answer goes in slices, so that a client that reads a little now and then is seen to read. One that reads too slowly
on the whole is given up.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.types import Send

from t2i_gateway.doors.answers import Pieces
from t2i_gateway.doors.errors import ClientGone
from t2i_gateway.held_requests import HeldAnswer
from t2i_gateway.intake import Intake

SLICE_BYTES = 256 << 10
READING_LIMIT_S = 30.0
BYTES_PER_S = 64 << 10  # slower readers of a whole answer are given up
END = {"type": "http.response.body", "body": b"", "more_body": False}


@contextmanager
def unread_answer(intake: Intake) -> Iterator[HeldAnswer]:
    """What the current task sends, counted.

    Raises:
        ClientGone: it was cut off, as others needed the room.
    """
    task = asyncio.current_task()
    assert task is not None, "an answer is sent by a task"  # noqa: S101
    with intake.answer(task.cancel) as held:
        try:
            yield held
        except asyncio.CancelledError:
            if held.is_cut:
                raise ClientGone from None
            raise


async def start(send: Send, headers: list[tuple[bytes, bytes]]) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": headers})


async def send_whole(send: Send, pieces: Pieces, held: HeldAnswer) -> None:
    """Send and forget these pieces, which are counted, and end the answer.

    Raises:
        ClientGone: the client read too slowly.
    """
    try:
        async with asyncio.timeout(READING_LIMIT_S + sum(map(len, pieces)) / BYTES_PER_S):
            await _send_pieces(send, pieces, held)
            await send(END)
    except TimeoutError:
        raise ClientGone from None


async def _send_pieces(send: Send, pieces: Pieces, held: HeldAnswer) -> None:
    held.offered()
    pieces.reverse()
    while pieces:
        piece = memoryview(_pop_joined(pieces))
        for at in range(0, len(piece), SLICE_BYTES):
            await send({"type": "http.response.body", "body": bytes(piece[at : at + SLICE_BYTES]), "more_body": True})
            held.offered()
        held.was_read(len(piece))
    held.all_read()


def _pop_joined(pieces: Pieces) -> bytes:
    """The last piece, with those before it that fit into a slice with it: to send few bytes costs as much as many."""
    joined = [pieces.pop()]
    size = len(joined[0])
    while pieces and size + len(pieces[-1]) <= SLICE_BYTES:
        joined.append(pieces.pop())
        size += len(joined[-1])
    return joined[0] if len(joined) == 1 else b"".join(joined)


class Outbox:
    """What a client of a stream has not read yet; it is small beside the images. `run` sends it."""

    def __init__(self, send: Send, held: HeldAnswer) -> None:
        self._send = send
        self._held = held
        self._waiting: asyncio.Queue[Pieces | None] = asyncio.Queue()  # previews of a request are few

    def put(self, pieces: Pieces) -> None:
        if pieces:
            self._held.add(sum(map(len, pieces)))
            self._waiting.put_nowait(pieces)

    def close(self) -> None:
        """Nothing more comes."""
        self._waiting.put_nowait(None)

    async def run(self) -> None:
        """Send all that comes."""
        while (pieces := await self._waiting.get()) is not None:
            await _send_pieces(self._send, pieces, self._held)
