"""A store that does not serve is seen from outside: by reason in the metrics of gateway and worker."""

from pathlib import Path
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry

from t2i_api.parse import parse_pool
from t2i_cache.errors import StoreFull, StoreUnavailable
from t2i_cache.keys import LatentKey
from t2i_cache.stores import MemoryStore, StoreHealth, StoreReason, health, open_store
from t2i_gateway.metrics import GatewayMetrics
from t2i_gateway.neighbours import NeighbourIndex
from t2i_policy.level import Level
from t2i_policy.profile import LevelProfile
from t2i_worker.engine.simulated import SimulatedEngine
from t2i_worker.jobs import ModelFacts
from t2i_worker.metrics import WorkerMetrics

KEY = LatentKey("alice", "model", "cat", 5)
POOL = """
apiVersion: t2iserving.dev/v1alpha1
kind: T2IServingPool
metadata: {name: shop}
spec:
  model: {source: "builtin://scenes"}
  workerGroups: [{name: a, workers: 1}]
"""


def shown(registry: CollectorRegistry, name: str) -> dict[str, float]:
    """Values above zero by reason."""
    samples = [sample for metric in registry.collect() for sample in metric.samples if sample.name == name]
    return {sample.labels["reason"]: sample.value for sample in samples if sample.value}


async def test_gateway_shows_a_store_that_does_not_serve() -> None:
    """Nobody listens there: counted by reason, and current while the last call failed."""
    registry = CollectorRegistry()
    store = open_store("redis://127.0.0.1:1", "shop")
    similar = NeighbourIndex(parse_pool(POOL), store, GatewayMetrics(registry))
    for calls in (1, 2):
        with pytest.raises(StoreUnavailable):
            await store.get(KEY)
        similar._show()
        assert shown(registry, "t2i_gateway_store_failures_total") == {"Unreachable": calls}
    assert shown(registry, "t2i_gateway_store_trouble") == {"Unreachable": 1}
    store.health.served()
    similar._show()
    assert shown(registry, "t2i_gateway_store_trouble") == {}
    assert shown(registry, "t2i_gateway_store_failures_total") == {"Unreachable": 2}
    await store.close()


def test_worker_shows_a_store_that_does_not_serve() -> None:
    """What the store counts is in the engine's tally, and read when scraped."""
    registry = CollectorRegistry()
    facts = ModelFacts("digest", "flow", "float32", "cpu", 4, 1.0, 8, 8, 1, "simulated")
    engine = SimulatedEngine(facts, LevelProfile("test", "test", 4, (0.001,), 0.0, ()), 1, 1)
    metrics = WorkerMetrics(registry)
    engine.tally.batch_sizes[Level(0, 1).steps_run] = 1
    metrics.attach(engine)
    engine.tally.store.failed(StoreReason.NOT_PERMITTED, "no rights")
    assert shown(registry, "t2i_worker_store_failures_total") == {"NotPermitted": 1}
    assert shown(registry, "t2i_worker_store_trouble") == {"NotPermitted": 1}


def test_trouble_is_told_once_it_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the first words of its reason, so that a condition does not flicker; an answer ends it."""
    now = [100.0]
    monkeypatch.setattr(health, "time", cast(Any, type("Clock", (), {"monotonic": staticmethod(lambda: now[0])})))
    told = StoreHealth()
    told.failed(StoreReason.UNREACHABLE, "refused")
    now[0] += health.LASTING_S / 2
    told.failed(StoreReason.UNREACHABLE, "reset")
    assert told.lasting() is None
    now[0] += health.LASTING_S / 2
    assert (found := told.lasting()) is not None
    assert found.message == "refused"
    told.served()
    assert told.lasting() is None


async def test_full_store_is_in_trouble_until_something_is_stored() -> None:
    """That it can still be read says nothing."""
    store = MemoryStore(10)
    with pytest.raises(StoreFull):
        await store.put(KEY, bytes(11))
    await store.get(KEY)
    assert store.health.trouble is not None
    await store.put(KEY, bytes(1))
    assert store.health.trouble is None


async def test_folder_that_cannot_be_written_is_counted(tmp_path: Path) -> None:
    """Each store counts its own failures."""
    store = open_store((tmp_path / "cache").as_uri())
    folder = tmp_path / "cache" / "alice" / "model"
    folder.mkdir(parents=True)
    (folder / "dog").write_bytes(b"a file where a folder must be")
    with pytest.raises(StoreUnavailable):
        await store.put(LatentKey("alice", "model", "dog", 5), b"x")
    assert store.health.failures == {StoreReason.FAILED: 1}
    await store.close()
