"""A TCP relay in front of a gRPC server that reads the frames going through, and can stop passing them on."""

import asyncio
from collections.abc import Callable
from typing import Self

PREFACE_BYTES, HEADER_BYTES = 24, 9
PING, GOAWAY, ACK = 6, 7, 1


class Http2Relay:
    """`pings`: asked by the client. `goaways`: sent by the server, by their debug text. `freeze` is a dead network."""

    def __init__(self, behind: str) -> None:
        host, _, port = behind.rpartition(":")
        self._behind = (host.strip("[]"), int(port))
        self.pings = 0
        self.goaways: list[str] = []
        self.address = ""
        self._frozen = False
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.close()

    def freeze(self) -> None:
        """Nothing comes through any more, in either direction, and nobody is told."""
        self._frozen = True

    async def pinged_or_told_off(self, pings: int) -> None:
        """Return when the client has asked so often, or the server has had enough."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.pings >= pings or bool(self.goaways))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind_reader, behind_writer = await asyncio.open_connection(*self._behind)
        self._writers += [writer, behind_writer]
        for source, target, skipped, look in (
            (reader, behind_writer, PREFACE_BYTES, self._asked),
            (behind_reader, writer, 0, self._answered),
        ):
            task = asyncio.create_task(self._copy(source, target, skipped, look))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _copy(
        self,
        source: asyncio.StreamReader,
        target: asyncio.StreamWriter,
        skipped: int,
        look: Callable[[int, int, bytes], None],
    ) -> None:
        try:
            if skipped:
                target.write(await source.readexactly(skipped))
            while True:
                header = await source.readexactly(HEADER_BYTES)
                payload = await source.readexactly(int.from_bytes(header[:3], "big"))
                look(header[3], header[4], payload)
                if not self._frozen:
                    target.write(header + payload)
                    await target.drain()
                async with self._changed:
                    self._changed.notify_all()
        except (asyncio.IncompleteReadError, ConnectionError):
            if not self._frozen:
                target.close()

    def _asked(self, kind: int, flags: int, _: bytes) -> None:
        self.pings += kind == PING and not flags & ACK

    def _answered(self, kind: int, _: int, payload: bytes) -> None:
        if kind == GOAWAY:
            self.goaways.append(payload[8:].decode())
