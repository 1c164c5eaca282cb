"""The wire of a Valkey that greets well and then answers as a test says: for errors that a real one gives in moments
that cannot be met, such as loading its data.
"""

import asyncio
from typing import Self

GREETING = {"server": "valkey", "version": "8.0.0", "proto": "2", "mode": "standalone", "role": "master"}


class PlayedValkey:
    """`answer` is what every command gets but the greeting's; `greeting` what HELLO says. Counts its connections.

    An answer leaves when the `gate` of the moment at which its command came is open; `asked` is set by each command.
    """

    def __init__(self) -> None:
        self.answer = b"$-1\r\n"
        self.greeting = dict(GREETING)
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked = asyncio.Event()
        self.connections = 0
        self.port = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"redis://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            while words := await _read_words(reader):
                reply, gate = self._reply(words[0].upper()), self.gate
                self.asked.set()
                await gate.wait()
                writer.write(reply)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    def _reply(self, command: bytes) -> bytes:
        if command == b"HELLO":
            parts = [part.encode() for pair in self.greeting.items() for part in pair]
            return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
        if command == b"EVALSHA":
            return b"*0\r\n"
        if command == b"CLIENT":
            return b"+OK\r\n"
        return self.answer


async def _read_words(reader: asyncio.StreamReader) -> list[bytes]:
    first = await reader.readline()
    if not first:
        return []
    words = []
    for _ in range(int(first[1:])):
        size = int((await reader.readline())[1:])
        words.append((await reader.readexactly(size + 2))[:-2])
    return words
