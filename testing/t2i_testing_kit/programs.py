"""Programs of a test: started on loopback, stopped for certain, even if the test run itself is killed."""

import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

READY_WITHIN_S = 120.0
STOP_WITHIN_S = 60.0
POLL_S = 0.05
EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
LOWEST_PORT, TRIES = 12_000, 1000
CHOICE = random.SystemRandom()  # of two test runs with one seed both would choose the same


class ProgramError(RuntimeError):
    """A program ended early or was not ready in time; the message holds the end of its log."""


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on now. Another program may take one before ours does: start again then.

    They lie below those that the system gives to outgoing connections. Of these one is soon taken. A client that tries
    to reach its stopped server again and again may even get the server's own port.
    """
    held: list[socket.socket] = []
    try:
        for _ in range(TRIES):
            if len(held) == count:
                return [one.getsockname()[1] for one in held]
            with suppress(OSError):
                held.append(socket.create_server(("127.0.0.1", CHOICE.randrange(LOWEST_PORT, _first_ephemeral()))))
        raise ProgramError(f"no {count} free ports from {LOWEST_PORT} to {_first_ephemeral()}")
    finally:
        for one in held:
            one.close()


def _first_ephemeral() -> int:
    first = int(EPHEMERAL.read_text().split()[0]) if EPHEMERAL.exists() else 0
    return first if first > LOWEST_PORT + TRIES else 32_768  # Linux' own default


@dataclass
class StartedProgram:
    """One running program. A guard shell waits for our end of its pipe to close, and then kills the program."""

    name: str
    arguments: Sequence[str]
    log: Path
    _process: subprocess.Popen[bytes] | None = None
    _guard: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None, f"{self.name} does not run"
        return self._process.pid

    def start(self) -> None:
        """Start it, in a session of its own: Ctrl-C reaches the test run only, which then stops it in order."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", 'read _; kill -9 "$0"', str(self.pid)],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def wait_until(self, ready: Callable[[], bool]) -> None:
        """Wait for it to be ready.

        Raises:
            ProgramError: it ended, or `READY_WITHIN_S` passed.
        """
        end = time.monotonic() + READY_WITHIN_S
        while not ready():
            if self._process is None or self._process.poll() is not None:
                raise ProgramError(f"{self.name} ended early:\n{self._tail()}")
            if time.monotonic() > end:
                raise ProgramError(f"{self.name} was not ready within {READY_WITHIN_S:.0f} s:\n{self._tail()}")
            time.sleep(POLL_S)

    def stop(self, kind: signal.Signals = signal.SIGKILL) -> None:
        """End it and its guard; a second call does nothing."""
        for process, how in ((self._guard, signal.SIGKILL), (self._process, kind)):
            if process is None:
                continue
            process.send_signal(how)
            try:
                process.wait(STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(STOP_WITHIN_S)
            if process.stdin is not None:
                process.stdin.close()
        self._guard = self._process = None

    def _tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])


def eventually(what: str, holds: Callable[[], bool], within_s: float = 60.0) -> None:
    """Look again and again until it holds.

    Raises:
        AssertionError: it did not in time.
    """
    end = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < end, f"not within {within_s:.0f} s: {what}"
        time.sleep(POLL_S)
