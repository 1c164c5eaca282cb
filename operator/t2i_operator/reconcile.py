"""Reconcile: one look at one pool, from what is to what should be.

    desire (pure) -> observe (the mirror) -> decide (pure) -> apply children -> decide by the answers -> apply the rest

Everything that is known is the API server's word, in the mirror, and what gateways and auditor last said. Between looks
these two are polled. A look follows only if demand makes a new plan due, or audits say something new.
"""

import asyncio
import logging
import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from t2i_operator.api import KubeApi
from t2i_operator.apply import Writer, summarize
from t2i_operator.audit_polling import AuditPoller
from t2i_operator.clock import Instant
from t2i_operator.decide.corrections import correct, read_record
from t2i_operator.decide.moving import MOVE_EVENTS
from t2i_operator.decide.plan import running_plan
from t2i_operator.decide.pods import is_short
from t2i_operator.decide.reconcile import decide
from t2i_operator.decide.status import explain_refusal
from t2i_operator.decide.types import Announce, Decision, DesiredPool, Observed, Problem, WriteStatus
from t2i_operator.desired import read_desired
from t2i_operator.errors import ApiError, Conflict, LeaseLost, WriteRefused
from t2i_operator.manifests import Images
from t2i_operator.metrics import OperatorMetrics
from t2i_operator.mirror import Mirror
from t2i_operator.observe import (
    PolledReports,
    after_writes,
    auditors_of,
    find_profile,
    gateways_of,
    mirrored,
    observe,
    ref_of,
)
from t2i_operator.polling import DemandPoller, LastLook
from t2i_operator.queue import LOOK_BACKOFF, PoolQueue
from t2i_operator.resync import Resync

log = logging.getLogger(__name__)
UNSETTLED_S = 60.0  # look again while something is under way, whatever is heard
SHORT_S = 5.0  # a workload is short of pods: the reason comes as an event a moment later, and events are not watched
CREATING_S = 15.0  # likewise; images are pulled in this state, too, which takes minutes


@dataclass(frozen=True, slots=True)
class Pollers:
    """Who asks the pods of pools."""

    demand: DemandPoller
    audits: AuditPoller


class Reconciler:
    """Looks at pools. Looks at one pool follow each other, as the queue has it."""

    def __init__(
        self,
        api: KubeApi,
        mirror: Mirror,
        *,
        queue: PoolQueue,
        resync: Resync,
        pollers: Pollers,
        images: Images,
        metrics: OperatorMetrics,
    ) -> None:
        self._api = api
        self._mirror = mirror
        self._queue = queue
        self._resync = resync
        self._demand = pollers.demand
        self._audits = pollers.audits
        self._images = images
        self._metrics = metrics
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="decide")

    async def look(self, key: str) -> float | None:
        """One reconcile, whatever comes of it; seconds until the next if nobody asks before, None = when asked."""
        began_s = time.monotonic()
        delay_s: float | None = None
        try:
            delay_s = await self._reconcile(key)
            self._queue.succeeded(key)
            outcome = "gone" if delay_s is None else "ok"
        except LeaseLost:
            outcome = "lease_lost"
        except Conflict as error:
            log.info("%s: %s", key, error)
            delay_s = self._queue.pause_after_failure(key)
            await self._read_again(key, delay_s)
            outcome = "conflict"
        except WriteRefused as error:
            log.warning("%s: %s", key, error)
            delay_s = self._queue.pause_after_failure(key)
            await self._tell_refusal(key, error)
            outcome = "refused"
        except ApiError as error:
            log.warning("%s: %s", key, error)
            delay_s = self._queue.pause_after_failure(key)
            outcome = "api_error"
        except Exception:  # one pool that we mishandle must not stop the others; it is logged, counted and tried again
            log.exception("%s: a mistake of the operator", key)
            delay_s = self._queue.pause_after_failure(key)
            outcome = "mistake"
        self._metrics.reconciles.labels(outcome).inc()
        self._metrics.duration.observe(time.monotonic() - began_s)
        return delay_s

    async def _reconcile(self, key: str) -> float | None:
        """Seconds until the next look, None if the pool is gone.

        Raises:
            ApiError: see `errors`.
            LeaseLost: we may not write.
        """
        # 1. The pool, out of the mirror.
        document = self._mirror.pool(key)
        if document is None:
            self._demand.forget(key)
            self._audits.forget(key)
            return None
        self._resync.check(document["metadata"]["namespace"])

        # 2. What its spec asks for.
        profile = await find_profile(self._api, self._mirror, document)
        desired = read_desired(ref_of(document), document, profile, self._images)

        # 3. What there is.
        heard = PolledReports(self._demand.reports(key), self._audits.heard(key), self._demand.followed(key))
        seen = await observe(self._api, self._mirror, document, desired, heard)

        # 4. What to do about it.
        now = Instant(time.time())
        decision = await self._decide(seen, desired, now)

        # 5. Children first. The rest is decided by the API server's answers to them.
        writer = Writer(self._api, self._mirror, seen.ref, partial(self._queue.succeeded, key))
        children = decision.children
        if children:
            await writer.write_children(children)
            seen = after_writes(self._mirror, seen)
            decision = await self._decide(seen, desired, now)

        # 6. Status, labels, events.
        self._remember(key, seen, desired)
        self._count_changes(seen, decision)
        if await writer.write_rest(decision.rest, now):
            self._queue.ask(key)
        if children or decision.rest:
            log.info("%s: %s", key, summarize((*children, *decision.rest)))

        # 7. When to look again, if nobody asks before.
        return self._pause_s(seen, decision)

    def _remember(self, key: str, seen: Observed, desired: DesiredPool | Problem) -> None:
        """What is polled until the next look. A spec that cannot be carried out says nothing of audits."""
        if isinstance(desired, DesiredPool):
            desired = correct(desired, read_record(seen.ref.name, seen.children))
            if desired.spec.quality is None:
                self._audits.forget(key)
            else:
                self._audits.remember(key, auditors_of(self._mirror, key))
        self._demand.remember(key, LastLook(seen, desired, gateways_of(self._mirror, key)))

    async def _decide(self, seen: Observed, desired: DesiredPool | Problem, now: Instant) -> Decision:
        """A plan may take tens of ms. One thread for all: more would only take the interpreter from the loop."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, decide, seen, desired, now)

    def _pause_s(self, seen: Observed, decision: Decision) -> float:
        if any(is_short(child) for child in seen.children.values()):
            return SHORT_S
        if seen.creating:
            return CREATING_S
        if seen.unserved:
            return UNSETTLED_S
        return self._resync.every_s * random.uniform(0.8, 1.2) if decision.settled else UNSETTLED_S

    async def _read_again(self, key: str, delay_s: float) -> None:
        """Somebody wrote in between, or the mirror has missed something."""
        if delay_s >= LOOK_BACKOFF.most_s:
            self._mirror.forget(key)  # an API server restored from a backup lives in the past for good
        try:
            await self._resync.pool(key)
        except ApiError as error:
            log.warning("%s: cannot be read again: %s", key, error)

    async def _tell_refusal(self, key: str, error: WriteRefused) -> None:
        """Put what was refused into the pool's conditions; best effort, as this may be refused too."""
        document = self._mirror.pool(key)
        if document is None:
            return
        now, seen = Instant(time.time()), mirrored(self._mirror, document)
        decision = decide(seen, explain_refusal(error.status, str(error)), now)
        try:
            await Writer(self._api, self._mirror, seen.ref, lambda: None).write_rest(decision.rest, now)
        except (ApiError, LeaseLost) as another:
            log.warning("%s: its status cannot tell: %s", key, another)

    def _count_changes(self, seen: Observed, decision: Decision) -> None:
        before = running_plan(seen.status).revision
        for action in decision.rest:
            plan = action.status.get("plan") if isinstance(action, WriteStatus) else None
            if plan is not None and plan["revision"] != before:
                self._metrics.replans.labels(plan["reason"]).inc()
            if isinstance(action, Announce) and action.reason in MOVE_EVENTS:
                self._metrics.moves.labels(action.reason).inc()

    def close(self) -> None:
        """End the thread that decides."""
        self._thread.shutdown(wait=False, cancel_futures=True)
