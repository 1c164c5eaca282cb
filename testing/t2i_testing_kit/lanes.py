"""Every test, in two lanes: runs of pytest side by side, which never start servers in both lanes at once.

The first lane runs all tests marked `process`, one after the other; they mostly wait. The second takes what is left,
folder by folder; the first helps it when it is done.
"""

import os
import re
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

LANES = 2
E2E = "e2e"  # needs a node: `make e2e`
SERVERS = "process"
SUMMARY = "short test summary info"
TIMED = re.compile(r" in \d+\.\d+s\b")  # after it, libraries may still say something
FAILURES = ("FAILED ", "ERROR ")
NONE_COLLECTED = 5  # pytest's status where nothing is selected
INTERRUPTED = 130
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class PytestRun:
    """A run of pytest: what `-m` selects in a folder."""

    name: str
    marked: str
    folder: Path


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """How it ended. `ending` is what its report says last, e.g. how many passed."""

    name: str
    status: int
    failures: tuple[str, ...]
    ending: str


def split_tests(tests: Path) -> list[PytestRun]:
    """Runs that together hold each test once: first the one with servers, then the others, large ones first."""
    sizes: dict[Path, int] = {}
    for file in tests.rglob("test_*.py"):
        below = tests / file.relative_to(tests).parts[0]
        sizes[below] = sizes.get(below, 0) + file.stat().st_size
    sizes.pop(tests / E2E, None)
    largest = sorted(sizes, key=lambda one: (-sizes[one], one))
    return [PytestRun(SERVERS, SERVERS, tests), *(PytestRun(one.stem, f"not {SERVERS}", one) for one in largest)]


class Lanes:
    """Takes runs until none is left. `say` gets every line of every run."""

    def __init__(self, runs: list[PytestRun], say: Say) -> None:
        self._left = deque(runs)
        self._say = say
        self._lock = threading.Lock()
        self._started: list[subprocess.Popen[str]] = []
        self._outcomes: list[RunOutcome] = []

    def run(self) -> list[RunOutcome]:
        """To the end of all, also where some fail.

        Raises:
            KeyboardInterrupt: asked to stop; every run has ended its servers.
        """
        with ThreadPoolExecutor(LANES, "lane") as threads:
            lanes = [threads.submit(self._work) for _ in range(LANES)]
            try:
                for lane in lanes:
                    lane.result()
            except BaseException:
                self._stop()
                raise
        return self._outcomes

    def _work(self) -> None:
        while True:
            with self._lock:  # whoever stops us sees each run that was started
                if not self._left:
                    return
                run = self._left.popleft()
                process = _start(run)
                self._started.append(process)
            self._outcomes.append(self._follow(run, process))

    def _follow(self, run: PytestRun, process: subprocess.Popen[str]) -> RunOutcome:
        failures: list[str] = []
        ending, in_summary = "it gave no report", False
        assert process.stdout is not None
        for line in map(str.rstrip, process.stdout):
            self._say(f"[{run.name}] {line}")
            in_summary = in_summary or SUMMARY in line
            if in_summary and line.startswith(FAILURES):
                failures.append(line)
            ending = line if TIMED.search(line) else ending
        return RunOutcome(run.name, process.wait(), tuple(failures), ending.strip("= "))

    def _stop(self) -> None:
        """As Ctrl-C does, so that fixtures end their servers."""
        with self._lock:
            self._left.clear()
            for process in self._started:
                if process.poll() is None:
                    process.send_signal(signal.SIGINT)


def _start(run: PytestRun) -> subprocess.Popen[str]:
    cache = f"cache_dir=.pytest_cache/{run.name}"  # two runs would overwrite each other's failures
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "pytest", "-q", "-o", cache, "-m", run.marked, str(run.folder)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,  # Ctrl-C reaches us alone, and each run once
        env={"OMP_NUM_THREADS": "1", **os.environ},  # threads that wait for a core that the other lane has would spin
    )


def run_lanes(tests: Path, say: Say) -> int:
    """Run every test below the folder; last what failed, and how each run ended. The exit status is for all."""
    outcomes = Lanes(split_tests(tests), say).run()
    for failure in (line for outcome in outcomes for line in outcome.failures):
        say(failure)
    for outcome in outcomes:
        if outcome.status != NONE_COLLECTED:
            say(f"{outcome.name}: exit status {outcome.status}, {outcome.ending}")
    statuses = {outcome.status for outcome in outcomes}
    if statuses == {NONE_COLLECTED}:
        return NONE_COLLECTED
    return max(abs(status) for status in statuses - {NONE_COLLECTED})


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")  # at once: lines of both lanes must not mix
    sys.stdout.flush()


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, _interrupt)  # a shell starts background jobs deaf to it, and runs would inherit that
    try:
        sys.exit(run_lanes(Path("tests"), _say))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
