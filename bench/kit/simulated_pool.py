"""A pool of simulated workers behind gateways, as real processes on this machine."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from t2i_policy.profile import LevelProfile
from t2i_policy.profile_document import render_profile
from t2ictl.processes import ServerProcess

START_LIMIT_S, STOP_LIMIT_S = 300.0, 20.0
SETTLE_S = 2.0
POOL = """
apiVersion: t2iserving.dev/v1alpha1
kind: T2IServingPool
metadata: {{name: bench}}
spec:
  model: {{source: "builtin://scenes", numInferenceSteps: {steps}, guidanceScalePercent: 200, width: 48, height: 48}}
  levels: [{levels}]
  workerGroups: [{{name: sim, workers: {workers}, engine: simulated}}]
  slo: {{latencyMilliseconds: {slo_ms}, minQualityPercent: 80}}
  gateway: {{replicas: {gateways}, maxQueuedRequests: {max_queued}}}
"""


@dataclass(frozen=True, slots=True)
class ServedPool:
    """What to start. `levels` is a list in YAML; the profile says how long steps take."""

    levels: str
    profile: LevelProfile
    slo_s: float
    max_batch: int
    workers: int = 2
    gateways: int = 1
    max_queued: int = 256


@dataclass(frozen=True, slots=True)
class RunningPool:
    """Its processes; every gateway knows every worker."""

    workers: list[ServerProcess]
    gateways: list[ServerProcess]


@asynccontextmanager
async def running(pool: ServedPool, folder: Path, gateway_arguments: Sequence[str] = ()) -> AsyncIterator[RunningPool]:
    """Yield it ready; no process outlives the block. `folder` takes its files and logs."""
    facts = {"steps": pool.profile.base_steps, "levels": pool.levels, "workers": pool.workers}
    text = POOL.format(**facts, slo_ms=round(1e3 * pool.slo_s), gateways=pool.gateways, max_queued=pool.max_queued)
    (folder / "pool.yaml").write_text(text)
    (folder / "profile.json").write_text(render_profile(pool.profile))
    common = ["--pool", str(folder / "pool.yaml"), "--profile", str(folder / "profile.json")]
    names = [f"sim-{number}" for number in range(pool.workers)]
    batch = ["--max-batch", str(pool.max_batch)]
    workers = [
        ServerProcess(name, "t2i_worker", [*common, "--group", "sim", "--name", name, *batch], folder) for name in names
    ]
    started = list(workers)
    try:
        await _start(workers)
        addresses = ",".join(worker.address for worker in workers)
        arguments = [*common, "--workers", addresses, "--local", *gateway_arguments]
        gateways = [
            ServerProcess(f"gateway-{number}", "t2i_gateway", arguments, folder) for number in range(pool.gateways)
        ]
        started += gateways
        await _start(gateways)
        await asyncio.sleep(SETTLE_S)  # the restored catalogue, and the first load reports
        yield RunningPool(workers, gateways)
    finally:
        for process in reversed(started):
            await process.stop(STOP_LIMIT_S)


async def _start(processes: Sequence[ServerProcess]) -> None:
    for process in processes:
        await process.start()
    for process in processes:
        await process.wait_ready(START_LIMIT_S)
