"""Reconcile: one look at one pool, from what is to what should be.

gather (I/O) -> decide (pure) -> apply children (I/O) -> decide the rest by the answers (pure) -> apply it (I/O)

Everything that is known is the API server's word and what the gateways last said. Between looks the gateways are
polled, and a look follows only if their demand makes a new plan due.
"""

import asyncio
import logging
import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from t2i_api.names import KIND
from t2i_operator.children import Images
from t2i_operator.cluster.api import KubeApi
from t2i_operator.cluster.applying import apply, apply_children
from t2i_operator.cluster.gathering import Gathered, gather, seen_children, seen_without_reading
from t2i_operator.cluster.remembering import Memory
from t2i_operator.deciding.actions import Action, Apply, Decision, Delete, LabelPod, WriteStatus
from t2i_operator.deciding.children import key_of
from t2i_operator.deciding.observed import ChildKey, ChildSeen, DemandReport, DesiredPool, Observed, Problem
from t2i_operator.deciding.planning import is_plan_due, running_plan
from t2i_operator.deciding.reconcile import decide
from t2i_operator.deciding.refusals import explain_refusal
from t2i_operator.deciding.starving import is_short
from t2i_operator.errors import ApiError, Conflict, LeaseLost, NotFound, WriteRefused
from t2i_operator.hearing import Hearing
from t2i_operator.instants import Now
from t2i_operator.metrics import OperatorMetrics
from t2i_operator.polling import DemandPoller, control_address
from t2i_operator.queueing import MAX_PAUSE_S, PoolQueue

log = logging.getLogger(__name__)
UNSETTLED_S = 60.0  # read everything again while something is under way, whatever is heard
SHORT_S = 5.0
CREATING_S = 15.0  # images are pulled in this state, too, which takes minutes
POLLS_AT_ONCE = 64
NAMED = 3


class Reconciler:
    """See the module. `watched` pools are those that are there."""

    def __init__(self, api: KubeApi, images: Images, resync_s: float, metrics: OperatorMetrics) -> None:
        self._api = api
        self._images = images
        self._resync_s = resync_s
        self._metrics = metrics
        self._poller = DemandPoller(metrics)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="decide")
        self._reports: dict[str, tuple[DemandReport, ...]] = {}
        self._last: dict[str, Gathered] = {}
        self._full_s: dict[str, float] = {}  # when everything is to be read again
        self.memory = Memory(api)
        self.hearing = Hearing(time.monotonic())
        self.queue: PoolQueue

    async def start(self, namespaces: Sequence[str]) -> None:
        """Read everything there is in few lists, and ask for a look at every pool. If that fails, pools are read one by
        one when the watches tell of them.
        """
        try:
            keys = await self.memory.fill(namespaces)
        except ApiError as error:
            log.warning("pools will be read one by one: %s", error)
            self.memory.clear()
            return
        for key in keys:
            self.queue.ask(key)

    async def look(self, key: str) -> float | None:
        """One reconcile; seconds until the next look."""
        began_s = time.monotonic()
        if began_s >= self._full_s.get(key, began_s + 1):
            self.memory.expire(key)
        done = self.memory.peek(key).writes
        try:
            delay_s = await self._reconcile(key)
            outcome = "ok"
            self.queue.succeeded(key)
        except NotFound:
            self.forget(key)
            outcome, delay_s = "gone", None
        except LeaseLost:
            outcome, delay_s = "lease_lost", None
        except Conflict as error:
            log.info("%s: %s", key, error)
            outcome, delay_s = "conflict", self._pause(key, done)
        except WriteRefused as error:
            log.warning("%s: %s", key, error)
            outcome, delay_s = "refused", self._pause(key, done)
            await self._tell_refusal(key, error)
        except ApiError as error:
            log.warning("%s: %s", key, error)
            outcome, delay_s = "api_error", self._pause(key, done)
        except Exception:  # one pool that we mishandle must not stop the others; it is logged, counted and tried again
            log.exception("%s: a mistake of the operator", key)
            outcome, delay_s = "mistake", self._pause(key, done)
        if outcome != "ok":
            self.memory.expire(key)  # what we believe may be the reason
        self._metrics.reconciles.labels(outcome).inc()
        self._metrics.duration.observe(time.monotonic() - began_s)
        if delay_s is not None:
            self._full_s[key] = time.monotonic() + delay_s - 0.01
        return delay_s

    def _pause(self, key: str, done: int) -> float:
        """Seconds after a failure; a look that got something done begins the row of failures anew."""
        if self.memory.peek(key).writes > done:
            self.queue.succeeded(key)
        delay_s = self.queue.pause_after_failure(key)
        if delay_s >= MAX_PAUSE_S:
            self.memory.forget(key)  # an API server restored from a backup lives in the past for good
        return delay_s

    async def _reconcile(self, key: str) -> float:
        """One look; seconds until everything should be read again."""
        if key in self._last and not self.memory.has_news(key):
            return max(0.1, self._full_s.get(key, 0.0) - time.monotonic())
        gathered = await gather(self._api, self.memory, key, self._images, self._reports.get(key, ()))
        seen, wanted, now = gathered.seen, gathered.wanted, Now(time.time())
        decision = await self._decide(seen, wanted, now)
        written = [action for action in decision.actions if isinstance(action, Apply | Delete)]
        if written:
            await apply_children(self._api, self.memory, seen.ref, written)
            seen = replace(seen, children=self._after(key, seen, written))
            decision = await self._decide(seen, wanted, now)
        rest = [action for action in decision.actions if not isinstance(action, Apply | Delete)]
        self._remember(key, Gathered(seen, wanted, gathered.gateways))
        self._count_replan(seen, decision)
        version = await apply(self._api, self.memory, seen.ref, rest, now)
        if self.memory.has_news(key):
            self.queue.ask(key)  # the answers told more than what we wrote
        if version is not None:
            self.hearing.wrote(key, version, time.monotonic())
        if written or rest:
            log.info("%s: %s", key, told((*written, *rest)))
        if any(is_short(child) for child in seen.children.values()):
            return SHORT_S  # the reason comes as an event a moment later, and events are not watched
        if gathered.creating:
            return CREATING_S  # likewise
        return self._resync_s * random.uniform(0.8, 1.2) if decision.settled else UNSETTLED_S

    async def _decide(self, seen: Observed, wanted: DesiredPool | Problem, now: Now) -> Decision:
        """A plan may take tens of ms. One thread for all: more would only take the interpreter from the loop."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, decide, seen, wanted, now)

    def _after(self, key: str, seen: Observed, written: Sequence[Action]) -> dict[ChildKey, ChildSeen]:
        """The children after our writes, by the answers to them; what events tell is for the next look."""
        deleted = {(one.kind, one.name) for one in written if isinstance(one, Delete)}
        kept = {child: there for child, there in seen.children.items() if child not in deleted}
        return kept | seen_children(self.memory.peek(key))

    async def _tell_refusal(self, key: str, error: WriteRefused) -> None:
        """Put what was refused into the pool's conditions; best effort, as this may be refused too."""
        seen = seen_without_reading(self.memory.peek(key))
        if seen is None:
            return
        now = Now(time.time())
        decision = decide(seen, explain_refusal(error.status, str(error)), now)
        try:
            await apply(self._api, self.memory, seen.ref, decision.actions, now)
        except (ApiError, LeaseLost) as another:
            log.warning("%s: its status cannot tell: %s", key, another)

    def _remember(self, key: str, gathered: Gathered) -> None:
        """What polling needs of the last look."""
        wanted = gathered.wanted
        lean = wanted if isinstance(wanted, Problem) else replace(wanted, children=())
        self._last[key] = Gathered(replace(gathered.seen, children={}), lean, gathered.gateways)
        self._metrics.pools.set(len(self._last))

    def _count_replan(self, seen: Observed, decision: Decision) -> None:
        before = running_plan(seen.status)
        for action in decision.actions:
            plan = action.status.get("plan") if isinstance(action, WriteStatus) else None
            if plan is not None and (before is None or plan["revision"] != before.revision):
                self._metrics.replans.labels(plan["reason"]).inc()

    async def poll_all(self) -> None:
        """Ask the gateways of every pool once, and look at pools whose demand makes a new plan due."""
        pools = [
            (key, last) for key, last in self._last.items() if isinstance(last.wanted, DesiredPool) and last.gateways
        ]
        slots = asyncio.Semaphore(POLLS_AT_ONCE)

        async def poll(key: str, last: Gathered) -> None:
            async with slots:
                await self._poll(key, last)

        await asyncio.gather(*(poll(key, last) for key, last in pools))
        addresses = {address for _, last in pools for pod in last.gateways if (address := control_address(pod))}
        await self._poller.keep_only(addresses)

    async def _poll(self, key: str, last: Gathered) -> None:
        reports = await self._poller.poll(last.gateways)
        if key not in self._last:
            return  # gone meanwhile
        self._reports[key] = reports
        if isinstance(last.wanted, Problem) or not reports:
            return
        due = is_plan_due(last.wanted, replace(last.seen, reports=reports), Now(time.time()))
        if due or _troubles(reports) != _troubles(last.seen.reports):
            self.memory.expire(key, [KIND])
            self.queue.ask(key)

    def forget(self, key: str) -> None:
        """The pool is gone."""
        self._last.pop(key, None)
        self._reports.pop(key, None)
        self._full_s.pop(key, None)
        self.memory.forget(key)
        self.hearing.forget(key)
        self._metrics.pools.set(len(self._last))

    async def close(self) -> None:
        """Close what is open."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        await self._poller.close()


def _troubles(reports: Sequence[DemandReport]) -> frozenset[str]:
    """What gateways want people to know; it is in the conditions."""
    troubles = {trouble for report in reports for trouble in (report.embedder_trouble, report.store_trouble)}
    failing = {name for report in reports for name in report.failing}
    return frozenset(troubles | failing) - {""}


def told(actions: Sequence[Action]) -> str:
    """What a look changed, in a line."""
    applied = ["/".join(key_of(one.manifest)) for one in actions if isinstance(one, Apply)]
    deleted = [f"{one.kind}/{one.name}" for one in actions if isinstance(one, Delete)]
    labels = [f"{one.name} at {one.level}" for one in actions if isinstance(one, LabelPod)]
    status = next((one.status for one in actions if isinstance(one, WriteStatus)), None)
    parts = [f"{verb} {_names(names)}" for verb, names in (("wrote", applied), ("deleted", deleted)) if names]
    if status is not None:
        ready = next(one for one in status["conditions"] if one["type"] == "Ready")
        plan = f", plan {status['plan']['revision']} ({status['mix']})" if "plan" in status else ""
        parts.append(f"Ready={ready['status']} ({ready['reason']}){plan}")
    return "; ".join([*parts, *([f"labelled {_names(labels)}"] if labels else [])])


def _names(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= NAMED else f"{len(names)} children or pods"
