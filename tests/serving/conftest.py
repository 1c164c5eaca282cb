"""A pool of real processes with simulated workers: everything but the denoising itself."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from t2i_policy.profile import render_profile
from t2i_testing_kit.serving import Client, WritePool, make_profile
from t2ictl.local_pool import LocalOptions, LocalPool

POOL = """
apiVersion: t2iserving.dev/v1alpha1
kind: T2IServingPool
metadata: {{name: test}}
spec:
  model: {{source: "builtin://scenes", numInferenceSteps: 20, guidanceScalePercent: 200, width: 48, height: 48,
          precision: fp32, embedder: "{embedder}"}}
  levels: [{{skippedSteps: 0}}, {{skippedSteps: 10}}, {{numInferenceSteps: 10}}]
  workerGroups: [{{name: sim, workers: {workers}, engine: {engine}}}]
  slo: {{latencyMilliseconds: {slo_ms}, minQualityPercent: 80}}
  gateway: {{replicas: 1, maxQueuedRequests: {max_queued}}}
"""


@pytest.fixture(scope="session")
def write_pool(tmp_path_factory: pytest.TempPathFactory) -> WritePool:
    """Write a pool file and a profile with steps of `step_s` seconds in batches of up to `cap`."""

    def write(
        workers: int = 2,
        engine: str = "simulated",
        step_s: float = 0.001,
        cap: int = 4,
        slo_ms: int = 5000,
        max_queued: int = 64,
        embedder: str = "",
    ) -> LocalOptions:
        folder = tmp_path_factory.mktemp("pool")
        (folder / "pool.yaml").write_text(
            POOL.format(workers=workers, engine=engine, slo_ms=slo_ms, max_queued=max_queued, embedder=embedder)
        )
        (folder / "profile.json").write_text(render_profile(make_profile((step_s,) * cap)))
        return LocalOptions(
            folder / "pool.yaml", "127.0.0.1:0", folder, folder / "profile.json", models_dir=folder, threads=1
        )

    return write


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool(write_pool: WritePool) -> AsyncIterator[LocalPool]:
    """Two fast simulated workers and a gateway, shared by the tests of a module."""
    async with LocalPool(write_pool()) as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def client(pool: LocalPool) -> AsyncIterator[Client]:
    """A client of the module's pool."""
    one = Client(pool.address)
    yield one
    await one.channel.close()
