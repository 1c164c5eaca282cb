"""How a component makes its metrics: on one registry, behind one prefix, with the same buckets everywhere."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

#: From a decision to a model that is loaded.
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120)


class MetricMaker:
    """`labels` are the names of labels; their values are bounded, and never a prompt."""

    def __init__(self, prefix: str, registry: CollectorRegistry) -> None:
        self._prefix = prefix
        self._registry = registry

    def counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"{self._prefix}_{name}", text, labels, registry=self._registry)

    def gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"{self._prefix}_{name}", text, labels, registry=self._registry)

    def seconds(self, name: str, text: str, *labels: str, buckets: tuple[float, ...] = SECONDS) -> Histogram:
        """A histogram of times, called NAME_seconds."""
        return Histogram(f"{self._prefix}_{name}_seconds", text, labels, buckets=buckets, registry=self._registry)
