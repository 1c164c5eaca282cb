"""Reconcile: one look at one pool, from what is to what should be.

gather (I/O) -> decide (pure) -> apply (I/O)

The only memory is what the gateways last said; everything else is in the API server. Between looks the gateways are
polled, and a full look follows only if their demand makes a new plan due.
"""

import asyncio
import logging
import time
from dataclasses import replace

from t2i_operator.children import Images
from t2i_operator.cluster.api import KubeApi
from t2i_operator.cluster.applying import apply
from t2i_operator.cluster.gathering import Gathered, gather
from t2i_operator.deciding.actions import Decision, WriteStatus
from t2i_operator.deciding.observed import DemandReport, Observed, Problem, Wanted
from t2i_operator.deciding.planning import decide_plan, running_plan
from t2i_operator.deciding.reconcile import decide
from t2i_operator.errors import ApiError, Conflict, LeaseLost, NotFound, Refused
from t2i_operator.hearing import Hearing
from t2i_operator.instants import Now
from t2i_operator.metrics import OperatorMetrics
from t2i_operator.polling import DemandPoller, control_address
from t2i_operator.queueing import PoolQueue

log = logging.getLogger(__name__)
UNSETTLED_S = 15.0  # look again while something is under way, whatever is heard


class Reconciler:
    """See the module. `watched` pools are those that are there."""

    def __init__(self, api: KubeApi, images: Images, resync_s: float, metrics: OperatorMetrics) -> None:
        self._api = api
        self._images = images
        self._resync_s = resync_s
        self._metrics = metrics
        self._poller = DemandPoller(metrics)
        self._reports: dict[str, tuple[DemandReport, ...]] = {}
        self._last: dict[str, Gathered] = {}
        self.hearing = Hearing(time.monotonic())
        self.queue: PoolQueue

    async def look(self, key: str) -> float | None:
        """One reconcile; seconds until the next look."""
        began_s = time.monotonic()
        try:
            settled = await self._reconcile(key)
            outcome, delay_s = "ok", self._resync_s if settled else UNSETTLED_S
            self.queue.succeeded(key)
        except NotFound:
            self.forget(key)
            outcome, delay_s = "gone", None
        except LeaseLost:
            outcome, delay_s = "lease_lost", None
        except Conflict as error:
            log.info("%s: %s", key, error)
            outcome, delay_s = "conflict", self.queue.pause_after_failure(key)
        except ApiError as error:
            log.warning("%s: %s", key, error)
            outcome = "refused" if isinstance(error, Refused) else "api_error"
            delay_s = self.queue.pause_after_failure(key)
        except Exception:  # one pool that we mishandle must not stop the others; it is logged, counted and tried again
            log.exception("%s: a mistake of the operator", key)
            outcome, delay_s = "mistake", self.queue.pause_after_failure(key)
        self._metrics.reconciles.labels(outcome).inc()
        self._metrics.duration.observe(time.monotonic() - began_s)
        return delay_s

    async def _reconcile(self, key: str) -> bool:
        namespace, _, name = key.partition("/")
        gathered = await gather(self._api, namespace, name, self._images, self._reports.get(key, ()))
        seen, now = gathered.seen, Now(time.time())
        self._last[key] = gathered
        self._metrics.pools.set(len(self._last))
        decision = await asyncio.to_thread(decide, seen, gathered.wanted, now)  # a plan may take tens of ms
        self._count_replan(seen, decision)
        version = await apply(self._api, seen.ref, decision, now)
        if version is not None:
            self.hearing.wrote(key, version, time.monotonic())
        return decision.settled

    def _count_replan(self, seen: Observed, decision: Decision) -> None:
        before = running_plan(seen.status)
        for action in decision.actions:
            plan = action.status.get("plan") if isinstance(action, WriteStatus) else None
            if plan is not None and (before is None or plan["revision"] != before.revision):
                self._metrics.replans.labels(plan["reason"]).inc()

    async def poll_all(self) -> None:
        """Ask the gateways of every planned pool once, and look at pools whose demand makes a new plan due."""
        pools = [(key, last) for key, last in self._last.items() if _is_planned(last.wanted) and last.gateways]
        await asyncio.gather(*(self._poll(key, last) for key, last in pools))
        addresses = {address for _, last in pools for pod in last.gateways if (address := control_address(pod))}
        await self._poller.keep_only(addresses)

    async def _poll(self, key: str, last: Gathered) -> None:
        reports = await self._poller.poll(last.gateways)
        self._reports[key] = reports
        if isinstance(last.wanted, Problem) or not reports:
            return
        seen = replace(last.seen, reports=reports)
        plan = await asyncio.to_thread(decide_plan, last.wanted, seen, Now(time.time()))
        before = running_plan(seen.status)
        if plan is not None and (before is None or plan.revision != before.revision):
            self.queue.ask(key)

    def forget(self, key: str) -> None:
        """The pool is gone."""
        self._last.pop(key, None)
        self._reports.pop(key, None)
        self.hearing.forget(key)
        self._metrics.pools.set(len(self._last))

    async def close(self) -> None:
        """Close what is open."""
        await self._poller.close()


def _is_planned(wanted: Wanted | Problem) -> bool:
    return isinstance(wanted, Wanted) and wanted.spec.mix.mode == "Auto"
