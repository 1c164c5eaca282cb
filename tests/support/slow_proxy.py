"""A TCP proxy on loopback that delays, holds or cuts what a server answers: a store behind a bad network.

Its port is also a name that may move: connections in flight stay where they are, new ones go to `behind`.
"""

import asyncio
from typing import Self


class SlowProxy:
    """`delay_s` before each piece of an answer; connections in flight feel a change at once."""

    def __init__(self, port: int) -> None:
        self.delay_s = 0.0
        self.port = 0
        self.behind = port
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Of the store through this proxy."""
        return f"redis://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            behind_reader, behind_writer = await asyncio.open_connection("127.0.0.1", self.behind)
        except OSError:
            writer.close()
            return
        for source, target, slow in ((reader, behind_writer, False), (behind_reader, writer, True)):
            task = asyncio.create_task(self._copy(source, target, slow))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _copy(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, slow: bool) -> None:
        try:
            while data := await source.read(65536):
                if slow and self.delay_s:
                    await asyncio.sleep(self.delay_s)
                target.write(data)
                await target.drain()
        except (ConnectionError, OSError):
            return
        finally:
            target.close()
