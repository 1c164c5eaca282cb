"""Following: the plan in the pool's status, and the workers in its EndpointSlices.

Of the plan: a higher revision replaces the running one at once and as a whole; a lower one is stale and ignored, unless
the pool was created anew (one created earlier is a stale answer too). One that cannot be read is ignored: the last good
plan stands.

Of the workers: an address that appears gets a connection, one that is gone from all slices loses it; what runs there
may end. A worker tells us itself whether it takes requests (its load). So a drain notice counts at once, long before a
slice changes. Not being ready is therefore no reason to drop an address.
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass

from kubernetes.aio.client import ApiClient

from t2i_api.names import COMPONENT_LABEL, POOL_LABEL, WORKER
from t2i_api.plan import PlanError, parse_plan
from t2i_gateway.metrics import GatewayMetrics
from t2i_gateway.planning_loop import PlanningLoop
from t2i_gateway.settings import PoolPlace
from t2i_gateway.workers.pool import WorkerPool
from t2i_policy.planning.plan import Plan
from t2i_runtime.kube.client import open_client
from t2i_runtime.kube.kinds import ENDPOINT_SLICE, POOL
from t2i_runtime.kube.watch import Collection, Item, Show, Watch

log = logging.getLogger(__name__)
PORT_NAME = "grpc"


@dataclass(frozen=True, slots=True)
class PlanInForce:
    """Which plan is in force: of which pool object, created when (RFC 3339, UTC), and its revision."""

    uid: str
    revision: int
    created: str = ""


def newer_plan(pool: Item, in_force: PlanInForce | None) -> Plan | None:
    """The plan to change to; None if the running one stays.

    Raises:
        PlanError: there is one that cannot be read.
    """
    document = (pool.get("status") or {}).get("plan")
    if document is None:
        return None
    plan = parse_plan(document)
    if in_force is None:
        return plan
    if in_force.uid != pool["metadata"]["uid"]:  # created anew, or an answer from before it was
        return plan if pool["metadata"].get("creationTimestamp", "") >= in_force.created else None
    return plan if plan.revision > in_force.revision else None


def worker_addresses(slices: Mapping[str, Item]) -> frozenset[str]:
    """The address HOST:PORT of every worker in the slices, ready or not."""
    found = set()
    for item in slices.values():
        ports = [port["port"] for port in item.get("ports") or () if port.get("name") == PORT_NAME]
        for endpoint in item.get("endpoints") or ():
            for address in endpoint["addresses"]:
                host = f"[{address}]" if item.get("addressType") == "IPv6" else address
                found |= {f"{host}:{port}" for port in ports}
    return frozenset(found)


class PlanFeed:
    """Takes in what the API server says of one pool. Used from one event loop."""

    def __init__(self, place: PoolPlace, planning: PlanningLoop, workers: WorkerPool, metrics: GatewayMetrics) -> None:
        self._place = place
        self._planning = planning
        self._workers = workers
        self._metrics = metrics
        self._in_force: PlanInForce | None = None

    async def follow_plan(self, client: ApiClient) -> None:
        """Serve by each new plan, until cancelled."""
        pool = Collection(POOL.path(self._place.namespace), fields=f"metadata.name={self._place.name}")
        await self._watch(client, pool, self._take_pool, "pool")

    async def follow_workers(self, client: ApiClient) -> None:
        """Reach workers that appear and leave those that go, until cancelled."""
        labels = f"{POOL_LABEL}={self._place.name},{COMPONENT_LABEL}={WORKER}"
        slices = Collection(ENDPOINT_SLICE.path(self._place.namespace), labels=labels)
        await self._watch(client, slices, self._take_slices, "endpointslices")

    async def _watch(self, client: ApiClient, collection: Collection, show: Show, resource: str) -> None:
        restarts = self._metrics.watch_restarts.labels(resource)
        heard = self._metrics.watch_heard.labels(resource)
        heard.set_to_current_time()  # counted from the beginning where nothing comes
        await Watch(client, collection, show, heard.set_to_current_time, restarts.inc).run()

    def _take_pool(self, pools: Mapping[str, Item]) -> None:
        pool = pools.get(self._place.name)
        if pool is None:
            return  # deleted: the last good plan stands as long as we do
        try:
            plan = newer_plan(pool, self._in_force)
        except PlanError as error:
            log.warning("%s; the plan before stays in force", error)
            return
        if plan is not None:
            self._planning.follow(plan, self._place.name, self._workers)
            metadata = pool["metadata"]
            self._in_force = PlanInForce(metadata["uid"], plan.revision, metadata.get("creationTimestamp", ""))

    def _take_slices(self, slices: Mapping[str, Item]) -> None:
        wanted = worker_addresses(slices)
        there = {connection.address for connection in self._workers.connections}
        for address in sorted(wanted - there):
            log.info("worker at %s joins", address)
            self._workers.add(address)
        for address in sorted(there - wanted):
            log.info("worker at %s leaves", address)
            self._workers.remove(address)


async def follow(place: PoolPlace, planning: PlanningLoop, workers: WorkerPool, metrics: GatewayMetrics) -> None:
    """Follow plan and workers until cancelled."""
    feed = PlanFeed(place, planning, workers, metrics)
    client = await open_client()
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(feed.follow_plan(client))
            group.create_task(feed.follow_workers(client))
    finally:
        await client.close()  # type: ignore[no-untyped-call]
