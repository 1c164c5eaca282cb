"""Leadership: one operator at a time, by a Lease of `coordination.k8s.io`.

Clocks of different machines are never compared. A foreign lease has run out when its record did not change for its
whole duration. Our own clock measures that (as client-go does). Our own lease is held until RENEW_LIMIT_S after the
last renewal that the API server confirmed. That time counts from before we asked. So it ends DURATION_S - RENEW_LIMIT_S
before anybody else may take the lease. This is more than the deadline of a write (`api.WRITE_LIMIT_S`).

The lease is renewed in a loop of its own, with a connection of its own. After a restart with a thousand pools the
operator's loop has thousands of things to do. An answer of the API server waits for all of them. Renewed there, the
lease would be lost to our own work, again and again. A loop that does not come round for STUCK_S does no work any more.
Then the lease is left to another operator, while the liveness probe has this process restarted.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from t2i_operator.api import KubeApi
from t2i_operator.errors import ApiError, LeaseLost, NotFound
from t2i_operator.manifests.child import Manifest
from t2i_operator.own_loop import run_in_own_loop

log = logging.getLogger(__name__)
DURATION_S = 15.0
RENEW_LIMIT_S = 10.0
RETRY_S = 2.0
STUCK_S = 60.0
LOOK_S = 0.5  # the lease runs out by the clock, without a word
OpenApi = Callable[[], AbstractAsyncContextManager[KubeApi]]


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """What a lease says: who holds it, and the version of that statement."""

    holder: str
    version: str
    duration_s: float = DURATION_S


def may_take(record: LeaseRecord | None, identity: str, unchanged_s: float) -> bool:
    """True if there is none, it is free, ours, or its holder has been silent for the whole duration."""
    if record is None or record.holder in ("", identity):
        return True
    return unchanged_s >= record.duration_s


class Pulse:
    """Does another loop come round? Ask `beat` now and then, from the thread that wants to know."""

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float] = time.monotonic) -> None:
        self._loop = loop
        self._clock = clock
        self._answered_s = clock()
        self._asked = False

    def beat(self) -> bool:
        """False if the loop has not come round for STUCK_S."""
        if not self._asked:
            self._asked = True
            self._loop.call_soon_threadsafe(self._answer)
        return self._clock() - self._answered_s < STUCK_S

    def _answer(self) -> None:
        self._asked, self._answered_s = False, self._clock()


class Leadership:
    """Run `keep` and `lead` beside each other; ask `is_held` from any thread. `clock` is monotonic."""

    def __init__(
        self, namespace: str, name: str, *, identity: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._clock = clock
        self._confirmed_s: float | None = None
        self._seen: LeaseRecord | None = None
        self._seen_s = clock()
        self._changed = asyncio.Event()

    @property
    def is_held(self) -> bool:
        """True while we may write."""
        confirmed_s = self._confirmed_s  # once: another thread keeps the lease
        return confirmed_s is not None and self._clock() - confirmed_s < RENEW_LIMIT_S

    def check(self) -> None:
        """The gate before every write.

        Raises:
            LeaseLost: we do not hold it.
        """
        if not self.is_held:
            raise LeaseLost("the lease is not held; another operator may be at work")

    async def keep(self, open_api: OpenApi) -> None:
        """Get and renew the lease until cancelled; then it has been given back.

        Raises:
            Exception: what ended it.
        """
        loop = asyncio.get_running_loop()
        pulse = Pulse(loop)

        async def renew() -> None:
            async with open_api() as api:
                await self._renew(api, pulse.beat, lambda: loop.call_soon_threadsafe(self._changed.set))

        await run_in_own_loop("lease", renew)

    async def lead(self, work: Callable[[], Awaitable[None]]) -> None:
        """Work whenever the lease is held, until cancelled. When the lease is lost, the work is cancelled.

        Raises:
            Exception: what ended the work.
        """
        while True:
            await self._wait_for(lambda: self.is_held)
            working = asyncio.ensure_future(work())
            lost = asyncio.create_task(self._wait_for(lambda: not self.is_held))
            try:
                await asyncio.wait((working, lost), return_when=asyncio.FIRST_COMPLETED)
            finally:
                working.cancel()
                lost.cancel()
                ended, _ = await asyncio.gather(working, lost, return_exceptions=True)
            if isinstance(ended, Exception):
                raise ended

    async def _wait_for(self, reached: Callable[[], bool]) -> None:
        while not reached():
            self._changed.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), LOOK_S)

    async def _renew(self, api: KubeApi, is_useful: Callable[[], bool], tell: Callable[[], object]) -> None:
        """Until cancelled. While it is not useful to hold the lease, it is left to others. `tell` is called after every
        round.
        """
        try:
            while True:
                held = self.is_held
                try:
                    if is_useful():
                        await self._round(api)
                    else:
                        log.error("lease %s/%s: this operator is stuck", self._namespace, self._name)
                except ApiError as error:
                    log.warning("lease %s/%s: %s", self._namespace, self._name, error)
                if held != self.is_held:
                    log.info("lease %s/%s is %s", self._namespace, self._name, "held" if self.is_held else "lost")
                tell()
                await asyncio.sleep(RETRY_S)
        finally:
            await self._release(api)

    async def _round(self, api: KubeApi) -> None:
        began_s = self._clock()
        lease = await self._read(api)
        record = None if lease is None else _record(lease)
        if record != self._seen:
            self._seen, self._seen_s = record, began_s
        if not may_take(record, self._identity, began_s - self._seen_s):
            self._confirmed_s = None
            return
        written = await api.write_lease(self._namespace, self._render(lease, self._identity), create=lease is None)
        self._seen, self._seen_s, self._confirmed_s = _record(written), began_s, began_s

    async def _read(self, api: KubeApi) -> Manifest | None:
        try:
            return await api.read_lease(self._namespace, self._name)
        except NotFound:
            return None

    async def _release(self, api: KubeApi) -> None:
        """So that the next one need not wait. Best effort: the lease runs out by itself."""
        if not self.is_held:
            return
        self._confirmed_s = None
        try:
            lease = await self._read(api)
            if lease is not None and _record(lease).holder == self._identity:
                await api.write_lease(self._namespace, self._render(lease, ""), create=False)
        except ApiError as error:
            log.info("the lease could not be given back: %s", error)

    def _render(self, lease: Manifest | None, holder: str) -> Manifest:
        """The lease with us in it; its resource version makes a race end in a conflict."""
        before = (lease or {}).get("spec", {})
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        is_new = before.get("holderIdentity") != holder
        spec = {
            "holderIdentity": holder,
            "leaseDurationSeconds": int(DURATION_S),
            "acquireTime": now if is_new else before.get("acquireTime", now),
            "renewTime": now,
            "leaseTransitions": before.get("leaseTransitions", 0) + (1 if is_new and holder else 0),
        }
        metadata = (lease or {}).get("metadata") or {"name": self._name, "namespace": self._namespace}
        return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}


def _record(lease: Manifest) -> LeaseRecord:
    spec = lease.get("spec", {})
    duration_s = float(spec.get("leaseDurationSeconds") or DURATION_S)
    return LeaseRecord(spec.get("holderIdentity") or "", lease["metadata"].get("resourceVersion", ""), duration_s)
