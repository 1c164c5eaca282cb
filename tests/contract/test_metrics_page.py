"""docs/metrics.md lists the metrics of every process: nothing missing, nothing invented, labels and all."""

import re
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from t2i_auditor.metrics import AuditorMetrics
from t2i_cache.stores import BoundedStore, MemoryStore, StoreLimits
from t2i_gateway.metrics import GatewayMetrics
from t2i_operator.metrics import OperatorMetrics
from t2i_policy.eviction import EvictionReason
from t2i_policy.level import Level
from t2i_policy.profile import LevelProfile
from t2i_worker.engine.simulated import SimulatedEngine
from t2i_worker.jobs import ModelFacts
from t2i_worker.metrics import WorkerMetrics

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


def documented(prefix: str) -> dict[str, set[str]]:
    """Metric name -> label names, from the page's tables."""
    rows = re.findall(rf"^\| `({prefix}_\w+)` \| ([^|]*)\|", PAGE.read_text(), re.MULTILINE)
    return {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows}


def exposed(registry: CollectorRegistry) -> dict[str, set[str]]:
    """The same from a registry. Metrics whose labels were never set show no sample, so labels come from the object."""
    found: dict[str, set[str]] = {}
    for metric in registry.collect():
        name = f"{metric.name}_total" if metric.type == "counter" else metric.name
        found[name] = {label for sample in metric.samples for label in sample.labels} - {"le"}
    return found


def test_gateway_metrics_are_documented() -> None:
    """Every metric, with the labels it takes."""
    registry = CollectorRegistry()
    for metric in vars(GatewayMetrics(registry)).values():
        if isinstance(metric, MetricWrapperBase) and metric._labelnames:
            metric.labels(*metric._labelnames)
    assert exposed(registry) == documented("t2i_gateway")


def test_operator_metrics_are_documented() -> None:
    """Every metric, with the labels it takes."""
    registry = CollectorRegistry()
    for metric in vars(OperatorMetrics(registry)).values():
        if metric._labelnames:
            metric.labels(*metric._labelnames)
    assert exposed(registry) == documented("t2i_operator")


def test_auditor_metrics_are_documented() -> None:
    """Every metric, with the labels it takes."""
    registry = CollectorRegistry()
    for metric in vars(AuditorMetrics(registry, 20)).values():
        if isinstance(metric, MetricWrapperBase) and metric._labelnames:
            metric.labels(*metric._labelnames)
    assert exposed(registry) == documented("t2i_audit")


async def test_worker_metrics_are_documented() -> None:
    """Those counted by the service and those read from the engine."""
    registry = CollectorRegistry()
    metrics = WorkerMetrics(registry)
    metrics.count_request("OK")
    metrics.count_request("OK", background=True)
    metrics.count_reload(True)
    facts = ModelFacts("digest", "flow", "float32", "cpu", 4, 1.0, 8, 8, 1, "simulated")
    engine = SimulatedEngine(facts, LevelProfile("test", "test", 4, (0.001,), 0.0, ()), 1, 1)
    engine.tally.batch_sizes[Level(0, 1).steps_run] = 1
    engine.tally.latent_starts["AsRequested"] = 1
    engine.tally.failures["NotFinite"] = 1
    engine.tally.self_tests["passed"] = 1
    engine.tally.latents_not_kept["Full"] = 1
    engine.tally.reloads["kept"] = 1
    engine.tally.reloads_took_s["kept"] = 1.0
    engine.own_latents = BoundedStore(MemoryStore(), StoreLimits(1, 1.0))
    engine.own_latents.tally.gone[EvictionReason.CAPACITY] = 1
    metrics.attach(engine)
    assert exposed(registry) == documented("t2i_worker")
