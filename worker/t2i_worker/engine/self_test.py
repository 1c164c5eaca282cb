"""The engine tests itself when too many different requests in a row have failed.

Until a test succeeds the engine takes no requests. A test draws a short image of its own through the same threads:
text, denoising, decoding. `t2i_policy.readiness` decides when a test is due and how long to wait between two.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from t2i_policy.readiness import FailuresInARow, pause_before_test_s
from t2i_worker.errors import JobFailed, NotFinite, OutOfMemory, WorkerError, where
from t2i_worker.jobs import Tally

log = logging.getLogger(__name__)
TEST_LIMIT_S = 60.0
#: Values of a metric's label; they must not change when a class is renamed.
_FAILURE_KINDS: dict[type[JobFailed], str] = {NotFinite: "NotFinite", OutOfMemory: "OutOfMemory"}
Pause = Callable[[float], Awaitable[None]]


class SelfTest:
    """Counts failures in a row. It calls `changed` whenever the engine's readiness may be another.

    `draw` runs the test and raises if it fails. For one event loop only.
    """

    def __init__(
        self,
        draw: Callable[[], Awaitable[None]],
        changed: Callable[[], None],
        tally: Tally,
        pause: Pause = asyncio.sleep,
    ) -> None:
        self.failures = FailuresInARow()
        self._draw = draw
        self._changed = changed
        self._tally = tally
        self._pause = pause
        self._due = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name="self-test")

    def count_success(self) -> None:
        if self.failures.count:
            self._set(FailuresInARow())

    def count_failure(self, request_id: str, error: JobFailed) -> None:
        """Count a request that failed by the worker's fault."""
        kind = _FAILURE_KINDS.get(type(error), "GenerationFailed")
        self._tally.failures[kind] = self._tally.failures.get(kind, 0) + 1
        self._set(self.failures.after_failure(request_id))
        if self.failures.too_many:
            self._due.set()

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    def _set(self, failures: FailuresInARow) -> None:
        self.failures = failures
        self._tally.failures_in_a_row = failures.count
        self._changed()

    async def _run(self) -> None:
        while True:
            await self._due.wait()
            self._due.clear()
            failed = 0  # failed tests make the pauses longer
            log.error("%d requests in a row failed: out of service until a test succeeds", self.failures.count)
            while self.failures.too_many:
                await self._pause(pause_before_test_s(failed))
                passed = await self._passes()
                self._count(passed)
                failed += not passed
                if passed:
                    log.info("the test succeeded: in service again")
                    self._set(FailuresInARow())

    async def _passes(self) -> bool:
        try:
            async with asyncio.timeout(TEST_LIMIT_S):
                await self._draw()
        except (WorkerError, TimeoutError) as error:
            log.warning("the test failed: %s", where(error))
            return False
        return True

    def _count(self, passed: bool) -> None:
        outcome = "passed" if passed else "failed"
        self._tally.self_tests[outcome] = self._tally.self_tests.get(outcome, 0) + 1
