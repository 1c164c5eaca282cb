"""A machine: namespaces around one first process, and the programs in them.

The first process is our `pause` program: it reaps orphans. Everything else enters its namespaces with nsenter. Programs
are known by their pid inside the machine, which no other process can take over while the machine runs unnoticed.
"""

import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from local_node.places import NodeError, Places

NAMESPACES = ("--mount", "--uts", "--ipc", "--net", "--pid")
COMMAND_LIMIT_S = 120.0
START_LIMIT_S = 10.0
POLL_S = 0.02
# What `unshare` runs as the first process of a machine, before it becomes `pause`.
BOOT = """set -e
mount --make-rshared /
for pair in $BINDS; do mount --bind "${pair%%:*}" "${pair##*:}"; done
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock /run/netns
hostname "$NAME"
ip link set lo up
sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.default.send_redirects=0 \
  net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0
echo booted > "$MARK"
exec "$PAUSE"
"""


@dataclass(frozen=True, slots=True)
class Machine:
    """Its state is in files, so another process may go on with it."""

    name: str
    places: Places

    @property
    def _pid_file(self) -> Path:
        return self.places.folder / f"{self.name}.pid"

    def boot(self, binds: Mapping[Path, str]) -> None:
        """Make it; `binds`: folder of ours -> place where programs insist on theirs.

        Raises:
            NodeError: the kernel refuses.
        """
        mark, log = self.places.folder / f"{self.name}.booted", self.places.logs / f"{self.name}.log"
        mark.unlink(missing_ok=True)
        environment = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "NAME": self.name,
            "MARK": str(mark),
            "PAUSE": str(self.places.programs["pause"]),
            "BINDS": " ".join(f"{ours}:{theirs}" for ours, theirs in binds.items()),
        }
        command = ["unshare", *NAMESPACES, "--fork", "--mount-proc", "--propagation", "private", "sh", "-c", BOOT]
        with log.open("ab") as output:
            first = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        wait_for(
            lambda: mark.exists() or first.poll() is not None, START_LIMIT_S, f"machine {self.name} boots; see {log}"
        )
        if not mark.exists():
            raise NodeError(f"cannot make machine {self.name}: {tail(log)}")
        child = Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split()[0]
        self._pid_file.write_text(f"{child} {started(int(child))}")
        first.returncode = 0  # it lives as long as the machine: nobody waits for it here

    @property
    def pid(self) -> int | None:
        """Of its first process as the host sees it; None if it does not run."""
        if not self._pid_file.exists():
            return None
        pid, start = self._pid_file.read_text().split()
        return int(pid) if started(int(pid)) == start else None

    def _enter(self) -> list[str]:
        pid = self.pid
        if pid is None:
            raise NodeError(f"machine {self.name} does not run")
        return ["nsenter", f"--target={pid}", *NAMESPACES, "--"]

    def command(self, *arguments: str) -> list[str]:
        """What runs this inside.

        Raises:
            NodeError: the machine does not run.
        """
        return [*self._enter(), *arguments]

    def run(self, *arguments: str, stdin: int | None = None, limit_s: float = COMMAND_LIMIT_S) -> str:
        """Run a command inside, to its end; its output.

        Raises:
            NodeError: it failed.
        """
        done = subprocess.run(
            self.command(*arguments),
            stdin=subprocess.DEVNULL if stdin is None else stdin,
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=False,
        )
        if done.returncode != 0:
            raise NodeError(f"{self.name}: {' '.join(arguments[:6])}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def start(self, program: str, arguments: Sequence[str]) -> None:
        """Start a long-running program inside."""
        pid_file = self._pid_of(program)
        pid_file.unlink(missing_ok=True)
        into = f'echo $$ > "$0" && exec "$@" >> {self.places.logs / program}.log 2>&1 < /dev/null'
        subprocess.run(
            ["setsid", "--fork", *self._enter(), "sh", "-c", into, str(pid_file), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=COMMAND_LIMIT_S,
            check=True,
        )
        wait_for(
            lambda: pid_file.exists() and bool(pid_file.read_text().strip()), START_LIMIT_S, f"{program} is started"
        )

    def _pid_of(self, program: str) -> Path:
        return self.places.folder / f"{self.name}.{program}.pid"

    def signal(self, program: str, kind: str) -> None:
        """STOP, CONT, KILL or TERM to a program that `start` started."""
        self.run("kill", f"-{kind}", self._pid_of(program).read_text().strip())

    def alive(self, program: str) -> bool:
        """True while the program runs."""
        try:
            self.signal(program, "0")
        except NodeError:
            return False
        return True

    def stop(self) -> None:
        """End it, with everything in it."""
        pid = self.pid
        if pid is not None:
            subprocess.run(["kill", "-KILL", str(pid)], check=False, timeout=COMMAND_LIMIT_S)
            wait_for(lambda: self.pid is None, START_LIMIT_S, f"machine {self.name} ends")
        self._pid_file.unlink(missing_ok=True)


def started(pid: int) -> str | None:
    """When a process started, in the kernel's ticks; None if there is none: pids are used again, this is not."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else fields[19]


def wait_for(holds: Callable[[], bool], limit_s: float, what: str) -> None:
    """Look again and again until it holds.

    Raises:
        NodeError: not in time.
    """
    end = time.monotonic() + limit_s
    while not holds():
        if time.monotonic() > end:
            raise NodeError(f"not within {limit_s:.0f} s: {what}")
        time.sleep(POLL_S)


def tail(path: Path, lines: int = 12) -> str:
    """The end of a log."""
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
