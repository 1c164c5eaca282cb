"""A real Valkey server for tests and benchmarks: on loopback, without files, stopped for certain.

`ValkeyServer` may be started, killed, paused and started again; `valkey_server` ends it with the block.
"""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from t2i_testing_kit.programs import ProgramError, StartedProgram, free_ports
from t2i_testing_kit.valkey.assets import valkey_command

START_TRIES = 3  # somebody may take a port between our look and the program's
PASSWORD = "correct horse"


class ValkeyServer:
    """One server. `options` are its command line, such as `("--maxmemory", "8mb")`.

    `certificates` is a folder with tls.crt, tls.key and ca.crt. With it the server listens with TLS, too, on a port of
    its own. It asks clients for a certificate unless the options say otherwise. The port in clear stays the test's own
    door.
    """

    def __init__(self, folder: Path, options: tuple[str, ...] = (), certificates: Path | None = None) -> None:
        self._folder = folder
        self._options = options
        self._certificates = certificates
        self._program: StartedProgram | None = None
        self.port = 0
        self.tls_port = 0

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"redis://127.0.0.1:{self.port}"

    @property
    def tls_url(self) -> str:
        """Where it listens with TLS, under a name that a certificate may carry."""
        return f"rediss://localhost:{self.tls_port}"

    def start(self) -> None:
        """Start it on a free port the first time, on the same one later; it is empty.

        Raises:
            ProgramError: it did not come up; with the end of its log.
        """
        for tries_left in reversed(range(START_TRIES)):
            port, tls_port = (self.port, self.tls_port) if self.port else free_ports(2)
            try:
                self._start_at(port, tls_port)
            except ProgramError:
                self.stop()
                if not tries_left:
                    raise
            else:
                self.port, self.tls_port = port, tls_port
                return

    def _start_at(self, port: int, tls_port: int) -> None:
        listen = ("--port", str(port), "--bind", "127.0.0.1")
        durable = ("--save", "", "--appendonly", "no", "--dir", str(self._folder))
        command = (*valkey_command(lambda _: None), *listen, *self._tls(tls_port), *durable, *self._options)
        self._program = StartedProgram("valkey", command, self._folder / "valkey.log")
        self._program.start()
        self._program.wait_until(lambda: self._answers(port))

    def _tls(self, port: int) -> tuple[str, ...]:
        if self._certificates is None:
            return ()
        names = {"--tls-cert-file": "tls.crt", "--tls-key-file": "tls.key", "--tls-ca-cert-file": "ca.crt"}
        files = [part for option, name in names.items() for part in (option, str(self._certificates / name))]
        return ("--tls-port", str(port), *files)

    def kill(self) -> None:
        """As a crash: nothing is said to anybody, and what it held is lost."""
        self.stop()

    def pause(self) -> None:
        """It keeps its connections and answers nothing."""
        assert self._program is not None
        os.kill(self._program.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """After `pause`."""
        assert self._program is not None
        os.kill(self._program.pid, signal.SIGCONT)

    def stop(self) -> None:
        """End it; a second call does nothing."""
        if self._program is not None:
            self._program.stop()
            self._program = None

    def command(self, *words: str | int) -> bytes:
        """One command with a simple answer, over a connection of its own; for tests that look from outside."""
        return _ask(self.port, words)

    def _answers(self, port: int) -> bool:
        try:
            return _ask(port, ("PING",)).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False


def _ask(port: int, words: tuple[str | int, ...]) -> bytes:
    parts = [str(word).encode() for word in words]
    message = b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(message)
        return connection.recv(65536)


@contextmanager
def valkey_server(folder: Path, *options: str, certificates: Path | None = None) -> Iterator[ValkeyServer]:
    """A server; no process of it outlives the block.

    Raises:
        ProgramMissing: no program can be had; the message says what to install.
        ProgramError: it does not start.
    """
    server = ValkeyServer(folder, options, certificates)
    server.start()
    try:
        yield server
    finally:
        server.stop()
