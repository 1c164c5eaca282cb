"""The operator's life: get the lease, then watch and reconcile while it is held; without it, wait.

What needs the lease runs in one task that is cancelled when the lease is lost. Until that has happened, the gate before
every write already refuses.

The way of an event:

    handlers.Listener.hear -> mirror.Mirror.hear -> queue.PoolQueue.ask ... reconcile.Reconciler.look -> _reconcile:
    desired.want -> observe.observe -> decide.reconcile.decide -> apply.Writer -> api.KubeApi
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from prometheus_client import CollectorRegistry

from t2i_operator.api import KubeApi
from t2i_operator.audit_polling import AuditPoller
from t2i_operator.handlers import Listener, build_registry, kopf_settings
from t2i_operator.leadership import Leadership
from t2i_operator.manifests import Images
from t2i_operator.metrics import OperatorMetrics
from t2i_operator.mirror import Mirror
from t2i_operator.polling import DemandPoller
from t2i_operator.probes import Probes
from t2i_operator.queue import PoolQueue
from t2i_operator.reconcile import Pollers, Reconciler
from t2i_operator.resync import Resync
from t2i_operator.settings import OperatorSettings
from t2i_operator.watching import keep_watching
from t2i_runtime.kube.client import open_client
from t2i_runtime.process import open_registry, stop_on_signals

log = logging.getLogger(__name__)
NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
WEDGED_S = 120.0
DEAF_S = 210.0  # three times kopf's inactivity timeout, after which it reconnects by itself
GAUGES_EVERY_S = 1.0
STOP_LIMIT_S = 10.0


@dataclass(frozen=True, slots=True)
class Operator:
    """The graph of objects of one operator process."""

    settings: OperatorSettings
    metrics: OperatorMetrics
    registry: CollectorRegistry
    leadership: Leadership
    probes: Probes
    stop: asyncio.Event

    async def run(self) -> None:
        """Until told to stop; the lease is given back at the end."""
        async with self._open_api() as api, asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self.leadership.keep(self._open_api)),
                group.create_task(self.probes.serve()),
                group.create_task(self.leadership.lead(partial(self._work, api))),
            ]
            await self.stop.wait()
            for task in reversed(tasks):
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([task], timeout=STOP_LIMIT_S)  # the rest of them need not wait for it

    @asynccontextmanager
    async def _open_api(self) -> AsyncIterator[KubeApi]:
        client = await open_client(self.settings.kubeconfig)
        try:
            yield KubeApi(client, self.leadership.check, self.metrics)
        finally:
            await client.close()  # type: ignore[no-untyped-call]

    async def _work(self, api: KubeApi) -> None:
        """What a leader does: watch and reconcile, until cancelled."""
        settings, mirror = self.settings, Mirror()
        queue = PoolQueue(settings.max_parallel)
        resync = Resync(api, mirror, settings.namespaces, every_s=settings.resync_s, ask=queue.ask)
        demand, audits = DemandPoller(queue.ask, self.metrics), AuditPoller(queue.ask, self.metrics)
        reconciler = Reconciler(
            api,
            mirror,
            queue=queue,
            resync=resync,
            pollers=Pollers(demand, audits),
            images=_images(settings),
            metrics=self.metrics,
        )
        listener = Listener(mirror, queue, resync, self.metrics)
        build = partial(build_registry, api.client, listener.hear, asyncio.get_running_loop())
        self.metrics.leader.set(1)
        self.probes.check = lambda: _complaint(mirror, queue)
        try:
            await resync.everything()
            async with asyncio.TaskGroup() as group:
                group.create_task(queue.run(reconciler.look))
                group.create_task(resync.keep())
                group.create_task(_every(settings.plan_every_s, demand.poll_all))
                group.create_task(_every(settings.plan_every_s, audits.poll_all))
                group.create_task(_every(GAUGES_EVERY_S, partial(self._show, mirror, queue, listener)))
                await keep_watching(build, kopf_settings(), settings.namespaces, listener.restarted)
        finally:
            self.metrics.leader.set(0)
            self.probes.check = lambda: None
            reconciler.close()
            await demand.close()
            await audits.close()

    async def _show(self, mirror: Mirror, queue: PoolQueue, listener: Listener) -> None:
        """Gauges that follow the clock."""
        self.metrics.queued.set(queue.depth)
        self.metrics.tasks.set(len(asyncio.all_tasks()))
        self.metrics.event_age.set(time.monotonic() - listener.last_s)
        self.metrics.deaf.set(mirror.unheard_s())


def _complaint(mirror: Mirror, queue: PoolQueue) -> str | None:
    """Why this process should be restarted; None if it is well."""
    if mirror.unheard_s() > DEAF_S:
        return "the watches do not report our own writes"
    if queue.longest_s() > WEDGED_S:
        return "a look at a pool does not end"
    return None


def _images(settings: OperatorSettings) -> Images:
    return Images(
        settings.gateway_image,
        settings.worker_image,
        settings.image_pull_policy,
        settings.image_pull_secrets,
        _own_namespace(),
    )


async def _every(pause_s: float, work: Callable[[], Awaitable[None]]) -> None:
    while True:
        await work()
        await asyncio.sleep(pause_s)


def build_operator(settings: OperatorSettings) -> Operator:
    """Nothing is started yet."""
    registry = open_registry()
    probes = Probes(settings.metrics_listen, settings.health_listen, registry)
    namespace = settings.lease_namespace or _own_namespace()
    leadership = Leadership(namespace, settings.lease_name, identity=settings.identity)
    return Operator(settings, OperatorMetrics(registry), registry, leadership, probes, asyncio.Event())


def _own_namespace() -> str:
    return NAMESPACE_FILE.read_text().strip() if NAMESPACE_FILE.is_file() else "default"


async def serve(settings: OperatorSettings) -> None:
    """Run until SIGTERM or SIGINT."""
    await replace(build_operator(settings), stop=stop_on_signals()).run()
