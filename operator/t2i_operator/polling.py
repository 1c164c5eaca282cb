"""Polling: what the gateways of every pool say about demand, each asked with a deadline; the silent are left out.

A pool is looked at if what they say makes a new plan due, or people should know it.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import grpc

from t2i_operator.clock import Instant
from t2i_operator.control_channels import ControlChannels, control_address, is_running
from t2i_operator.decide.models import moves_on
from t2i_operator.decide.plan import demand_of, is_plan_due
from t2i_operator.decide.pods import read_pod
from t2i_operator.decide.types import (
    NOTHING_FOLLOWED,
    DemandReport,
    DesiredPool,
    MeasuredProfile,
    ModelSeen,
    Observed,
    PodSeen,
    Problem,
)
from t2i_operator.manifests.child import Manifest
from t2i_operator.metrics import OperatorMetrics
from t2i_policy.planning.moves import FollowedDemand
from t2i_protos.v1 import control_pb2, control_pb2_grpc

POLL_LIMIT_S = 1.0
POLLS_AT_ONCE = 64
MOVES_EVERY_S = 10.0  # between looks that ask whether a worker should move


@dataclass(frozen=True, slots=True)
class LastLook:
    """What polling needs of the last look at a pool."""

    seen: Observed
    desired: DesiredPool | Problem
    gateways: tuple[Manifest, ...]


class DemandPoller:
    """Close it. `ask` is called with the key of a pool to look at."""

    def __init__(self, ask: Callable[[str], None], metrics: OperatorMetrics) -> None:
        self._ask = ask
        self._metrics = metrics
        self._channels = ControlChannels()
        self._reports: dict[str, tuple[DemandReport, ...]] = {}
        self._last: dict[str, LastLook] = {}
        self._looked_s: dict[str, float] = {}
        self._followed: dict[str, FollowedDemand] = {}

    def reports(self, key: str) -> tuple[DemandReport, ...]:
        """What the gateways of a pool last said."""
        return self._reports.get(key, ())

    def followed(self, key: str) -> FollowedDemand:
        """The demand of the last minutes; kept for pools whose workers move."""
        return self._followed.get(key, NOTHING_FOLLOWED)

    def remember(self, key: str, last: LastLook) -> None:
        """The newest look at a pool. Children are left out: there are many, and polling needs none."""
        desired = last.desired if isinstance(last.desired, Problem) else replace(last.desired, children=())
        self._last[key] = LastLook(replace(last.seen, children={}), desired, last.gateways)
        self._looked_s[key] = time.monotonic()
        self._metrics.pools.set(len(self._last))

    def forget(self, key: str) -> None:
        """The pool is gone."""
        for kept in (self._last, self._reports, self._followed, self._looked_s):
            kept.pop(key, None)
        self._metrics.pools.set(len(self._last))

    async def poll_all(self) -> None:
        """Ask the gateways of every pool once."""
        polled = {key: last for key, last in self._last.items() if isinstance(last.desired, DesiredPool)}
        slots = asyncio.Semaphore(POLLS_AT_ONCE)

        async def poll(key: str, last: LastLook) -> None:
            async with slots:
                self._take_in(key, last, await self.poll(last.gateways))

        await asyncio.gather(*(poll(key, last) for key, last in polled.items()))
        await self._channels.keep(pod for last in polled.values() for pod in last.gateways)

    def _take_in(self, key: str, last: LastLook, reports: tuple[DemandReport, ...]) -> None:
        if key not in self._last:
            return  # gone meanwhile
        self._reports[key] = reports
        if isinstance(last.desired, Problem) or not reports:
            return
        seen, now = replace(last.seen, reports=reports), Instant(time.time())
        if moves_on(last.desired.spec):
            self._followed[key] = self.followed(key).seen(demand_of(last.desired, seen), now.unix_s)
        if is_plan_due(last.desired, seen, now) or self._is_news(key, last, reports):
            self._ask(key)

    def _is_news(self, key: str, last: LastLook, reports: tuple[DemandReport, ...]) -> bool:
        """Whether there is something that people should know, or a reason to look at the moves. A worker that moves may
        be there, or the next move may be due: only a look finds out."""
        if _troubles(reports) != _troubles(last.seen.reports):
            return True
        if isinstance(last.desired, Problem) or not moves_on(last.desired.spec):
            return False
        waited_s = time.monotonic() - self._looked_s.get(key, 0.0)
        return [one.held for one in reports] != [one.held for one in last.seen.reports] or waited_s >= MOVES_EVERY_S

    async def poll(self, gateways: Sequence[Manifest]) -> tuple[DemandReport, ...]:
        """Ask the running gateways among these pods. One that is not ready may know why: no worker serves."""
        asked = [(read_pod(pod), control_address(pod)) for pod in gateways if is_running(pod)]
        answers = await asyncio.gather(*(self._ask_one(pod, address) for pod, address in asked if address is not None))
        return tuple(answer for answer in answers if answer is not None)

    async def _ask_one(self, pod: PodSeen, address: str) -> DemandReport | None:
        stub = control_pb2_grpc.ControlStub(self._channels.to(address))
        try:
            answer = await stub.GetDemand(control_pb2.GetDemandRequest(), timeout=POLL_LIMIT_S)
        except grpc.aio.AioRpcError as error:
            self._metrics.polls.labels(error.code().name).inc()
            return None
        self._metrics.polls.labels("OK").inc()
        return replace(to_report(pod.name, answer), ready=pod.ready)

    async def close(self) -> None:
        """Close every channel."""
        await self._channels.close()


def _troubles(reports: Sequence[DemandReport]) -> frozenset[str]:
    """What gateways want people to know; it is in the conditions."""
    troubles = {trouble for report in reports for trouble in (report.embedder_trouble, report.store_trouble)}
    failing = {name for report in reports for name in report.failing}
    return frozenset(troubles | failing) - {""}


def to_report(name: str, answer: control_pb2.GetDemandResponse) -> DemandReport:
    """The wire's milliseconds become seconds."""
    return DemandReport(
        gateway=name,
        rates_rps={one.prompt_class: one.rate_rps for one in answer.demand if one.rate_rps > 0},
        embedder_trouble=answer.embedder_trouble,
        store_trouble=answer.store_trouble,
        left_out={one.worker: one.reason for one in answer.left_out},
        measured={
            (one.group, one.model): MeasuredProfile(tuple(value / 1e3 for value in one.step_ms), one.fixed_ms / 1e3)
            for one in answer.measurements
            if one.step_ms
        },
        held={one.worker: ModelSeen(one.model, one.ready) for one in answer.held_models},
    )
