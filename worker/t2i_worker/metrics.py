"""The worker's metrics. docs/metrics.md lists them, and a test compares. No label holds a prompt or grows unbounded."""

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from t2i_cache.stores import BoundedStore, StoreHealth, StoreReason
from t2i_cache.stores.bounded import StoreTally
from t2i_policy.readiness import ReadyReason
from t2i_runtime.metrics import MetricMaker
from t2i_worker.jobs import Engine, Finished

PREFIX = "t2i_worker"


class WorkerMetrics:
    """Counts what the service sees; the engine's own figures are read at each scrape."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        make = MetricMaker(PREFIX, registry)
        self._requests = make.counter("requests", "Requests ended, by gRPC code.", "code")
        self._background = make.counter("background_requests", "Background requests ended, by gRPC code.", "code")
        self._reloads = make.counter("secret_reloads", "Readings of the mounted certificate.", "outcome")
        self._certificate_end = make.gauge(
            "certificate_end_timestamp_seconds", "Unix time at which the worker's certificate ends; 0 without one."
        )
        self._wait = make.seconds("wait", "Accepted to first step.")
        self._denoise = make.seconds("denoise", "First step to last step.")
        self._encode = make.seconds("encode", "Latent to encoded image.")
        self._fetch = make.seconds("latent_fetch", "Fetching the start latent, 0 without one.")

    def attach(self, engine: Engine) -> None:
        self._registry.register(_EngineCollector(engine))

    def count_request(self, code: str, background: bool = False) -> None:
        counter = self._background if background else self._requests
        counter.labels(code).inc()

    def count_reload(self, in_force: bool) -> None:
        """Count a reading of the mounted certificate: at the start, and after every change."""
        self._reloads.labels("in_force" if in_force else "refused").inc()

    def show_certificate(self, ends_s: float) -> None:
        """Unix time after which the certificate is refused."""
        self._certificate_end.set(ends_s)

    def observe(self, finished: Finished) -> None:
        self._wait.observe(finished.wait_ms / 1e3)
        self._denoise.observe(finished.denoise_ms / 1e3)
        self._encode.observe(finished.encode_ms / 1e3)
        self._fetch.observe(finished.fetch_ms / 1e3)


class _EngineCollector(Collector):
    """Reads load and counters at each scrape, so the step loop never touches a metric."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterable[Metric]:
        load, tally = self._engine.load(), self._engine.tally
        yield _gauge("ready", "1 when warm and taking requests.", float(load.ready))
        yield _by_label("health", "1 for why the worker takes requests or none.", "reason", self._health())
        yield _gauge("failures_in_a_row", "Different requests failed since one succeeded.", tally.failures_in_a_row)
        yield _totals("failed_requests", "Requests failed by the worker's fault.", "kind", tally.failures)
        yield _totals("self_tests", "Tests after too many failures in a row.", "outcome", tally.self_tests)
        yield _counter("decode_fallbacks", "Decodes repeated in fp32.", tally.decode_fallbacks)
        yield _counter("previews_left_out", "Previews that could not be decoded.", tally.previews_left_out)
        yield _gauge("running_requests", "Requests in the step loop.", load.running)
        yield _gauge("waiting_requests", "Requests accepted and not in the step loop.", load.waiting)
        yield _gauge("background_jobs", "Background requests, running or waiting.", load.background)
        yield _gauge("batch_cap", "Largest batch in use; falls after running out of memory.", load.batch_cap)
        yield _gauge("steps_owed", "Denoising steps owed to running and waiting requests.", load.steps_left)
        yield _counter("steps_run", "Denoising steps run.", tally.steps_run)
        yield _counter("steps_forecast", "Denoising steps forecast from earlier ones.", tally.steps_forecast)
        yield _counter("steps_skipped", "Denoising steps skipped by cached latents.", tally.steps_skipped)
        yield _counter("out_of_memory", "Times a batch, a text or an image did not fit.", tally.out_of_memory)
        yield _counter("cancelled_requests", "Requests let go at a step boundary.", tally.cancelled)
        yield _totals("batches", "Steps run, by batch size.", "size", tally.batch_sizes)
        yield _totals("latent_starts", "Skips asked for, by how the fetch went.", "reason", tally.latent_starts)
        yield _by_label("model_held", "1 for the model that it holds or loads.", "model", {load.model: 1.0})
        yield _totals("model_reloads", "Changes of the model, by outcome.", "outcome", tally.reloads)
        yield _totals("model_reload_seconds", "Time out of service for another model.", "outcome", tally.reloads_took_s)
        yield from _store_metrics(tally.store)
        yield _totals(
            "latents_not_kept", "Latents that the store did not take, by reason.", "reason", tally.latents_not_kept
        )
        yield from _own_store_metrics(self._engine.own_latents)

    def _health(self) -> Mapping[str, float]:
        now = self._engine.readiness().reason
        return {reason.value: float(reason is now) for reason in ReadyReason}


def _store_metrics(health: StoreHealth) -> Iterable[Metric]:
    trouble = health.trouble
    failures = {reason.value: health.failures.get(reason, 0) for reason in StoreReason}
    troubles = {reason.value: float(trouble is not None and trouble.reason is reason) for reason in StoreReason}
    yield _totals("store_failures", "Calls to the latent store that failed, by reason.", "reason", failures)
    yield _by_label("store_trouble", "1 while the latent store does not serve, by reason.", "reason", troubles)


def _own_store_metrics(store: BoundedStore | None) -> Iterable[Metric]:
    """Metrics of the worker's own store; zeros without one."""
    tally = StoreTally() if store is None else store.tally
    yield _gauge("latent_store_bytes", "What the worker's own latents take.", store.used_bytes if store else 0)
    yield _gauge("latent_store_entries", "Prompts with own latents.", store.num_entries if store else 0)
    yield _counter("latent_store_full", "Times the own store met a full disk and made room.", tally.times_full)
    yield _totals(
        "latents_gone",
        "Own latents that went, by reason.",
        "reason",
        {str(reason): count for reason, count in tally.gone.copy().items()},
    )


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{PREFIX}_{name}", text, value=value)


def _counter(name: str, text: str, value: float) -> CounterMetricFamily:
    return CounterMetricFamily(f"{PREFIX}_{name}", text, value=value)


def _totals(name: str, text: str, label: str, counts: Mapping[str, float] | Mapping[int, float]) -> CounterMetricFamily:
    family = CounterMetricFamily(f"{PREFIX}_{name}", text, labels=[label])
    for value, count in sorted(dict(counts).items()):
        family.add_metric([str(value)], count)
    return family


def _by_label(name: str, text: str, label: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"{PREFIX}_{name}", text, labels=[label])
    for value, sample in values.items():
        family.add_metric([value], sample)
    return family
