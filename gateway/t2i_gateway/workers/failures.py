"""Failures: what a request that failed on workers says about each of them.

Only what a worker itself said counts, and only codes that mean the server's fault. UNAVAILABLE is also what a broken
connection looks like, and what a worker says that drains: it counts at the next look, if the worker is ready then.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import grpc

from t2i_gateway.log_limit import LogLimit
from t2i_policy.failure_streak import Blame
from t2i_policy.outliers import EjectedReason, WorkerHealth, after_failure, after_image

_SURE = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN}


class WorkerFailures:
    """The failures of one worker. `read` gives its health, `judged` takes what failures and images make of it."""

    def __init__(
        self, read: Callable[[], WorkerHealth], judged: Callable[[WorkerHealth], None], clock: Callable[[], float]
    ) -> None:
        self._read = read
        self._judged = judged
        self._clock = clock
        self.lost_lines = LogLimit(clock)
        self._unsure: dict[int, Blame] = {}  # by prompt, until the next look
        self.explained = 0  # rises whenever unsure failures are known to say nothing

    @property
    def failing(self) -> bool:
        """True while it is left out, or on trial, for its failures."""
        return self._read().reason is EjectedReason.FAILING

    def failed(self, prompt: int, blame: Blame, sure: bool = True) -> None:
        """A request failed there, or more became known of one that did."""
        if not sure or prompt in self._unsure:
            self._unsure[prompt] = blame
        else:
            self._judged(after_failure(self._read(), prompt, blame, self._clock()))

    def drew(self) -> None:
        """The worker drew an image."""
        self._judged(after_image(self._read(), self._clock()))

    def look(self, ready: bool) -> None:
        """Count unsure failures if the worker still says that it is ready, else forget them."""
        if not ready:
            self.forget_unsure()
        unsure, self._unsure = self._unsure, {}
        for prompt, blame in unsure.items():
            self.failed(prompt, blame)

    def forget_unsure(self) -> None:
        """The connection broke, or the worker is not ready, which explains the unsure failures."""
        self._unsure = {}
        self.explained += 1


@dataclass(slots=True)
class RequestFailures:
    """The workers on which one request failed so far, and whether each was sound until then. An unsure failure also
    notes what was explained of the worker's until then. `prompt`: its hash."""

    prompt: int
    _failed: list[tuple[WorkerFailures, bool, int | None]] = field(default_factory=list)

    def lost(self, worker: WorkerFailures, code: grpc.StatusCode) -> None:
        """This worker answered with `code`."""
        if code not in _SURE and code is not grpc.StatusCode.UNAVAILABLE:
            return
        sound = not worker.failing
        shared = any(was_sound for _, was_sound, _ in self._failed)
        worker.failed(self.prompt, Blame.SHARED if shared else Blame.OPEN, code in _SURE)
        if sound:
            self._tell(Blame.SHARED)
        self._failed.append((worker, sound, None if code in _SURE else worker.explained))

    def drawn(self, worker: WorkerFailures) -> None:
        """This worker drew the request."""
        worker.drew()
        self._tell(Blame.WORKERS)

    def _tell(self, blame: Blame) -> None:
        for worker, _, explained in self._failed:
            if explained is None or explained == worker.explained:
                worker.failed(self.prompt, blame)
