"""The gateway's metrics (docs/metrics.md lists them; a test compares). Labels are bounded; prompts never appear."""

from collections import Counter as Counts
from collections.abc import Iterable

from prometheus_client import CollectorRegistry

from t2i_policy.outliers import EjectedReason
from t2i_runtime.metrics import MetricMaker

PREFIX = "t2i_gateway"
_FAST_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1)
#: Lower ends of the similarity bands in labels.
BANDS = (0.98, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5)


def band_of(similarity: float | None) -> str:
    """The label of a similarity: `none` without a neighbour, `lt0.5`, or the band's lower end such as `0.9`."""
    if similarity is None:
        return "none"
    return next((str(low) for low in BANDS if similarity >= low), "lt0.5")


class GatewayMetrics:
    """Every metric of a gateway, on one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        make = MetricMaker(PREFIX, registry)
        counter, gauge, seconds = make.counter, make.gauge, make.seconds
        self._ready: Counts[str] = Counts()  # by model
        self._queued: Counts[str] = Counts()
        self.requests = counter("requests", "Requests ended, by method and gRPC code.", "method", "code")
        self.http_requests = counter("http_requests", "HTTP requests ended, by route and status.", "route", "status")
        self.duration = seconds("request_duration", "Arrival to the last byte, of requests that got an image.")
        self.wanted = counter("wanted_level", "Requests by wanted level.", "level")
        self.served = counter("served_level", "Images by the level that really ran.", "level")
        self.sizes = counter("image_sizes", "Images by size; those inside a range count as range.", "size")
        self.decisions = counter("decisions", "Requests by the reason of their served level.", "reason")
        self.refusals = counter("refusals", "Requests refused by admission, by reason.", "reason")
        self.placements = counter("placements", "Requests sent to a worker, by the reason of the choice.", "reason")
        self.lookups = counter("cache_lookups", "Lookups by the similarity band of the nearest prompt.", "band")
        self.hits = counter("cache_hits", "Images that started from a cached latent, by similarity band.", "band")
        self.latent_misses = counter("latent_misses", "Starts from fewer steps than decided, by reason.", "reason")
        self.steps_run = counter("steps_run", "Denoising steps run for images that were sent.")
        self.steps_skipped = counter("steps_skipped", "Denoising steps skipped by cached latents.")
        self.retries = counter("retries", "Requests moved to another worker.")
        self.replays = counter("replays", "Requests answered from an earlier one with the same id.")
        self.evictions = counter("evictions", "Latents given up, by reason.", "reason")
        self.embedding_failures = counter("embedding_failures", "Prompts that could not be embedded.")
        self.unread_prompts = counter("unread_prompts", "Prompts that the embedder did not read whole.", "reason")
        self.embedder_missing = gauge("embedder_missing", "1 while the pool's embedder is not there.")
        self.decide = seconds("decide", "Embedding, lookup and decision of one request.", buckets=_FAST_SECONDS)
        self.queue = seconds("queue", "Time in the gateway's queue.")
        self.denoise = seconds("denoise", "First to last denoising step, as the worker measured it.")
        self.encode = seconds("encode", "Latent to encoded image, as the worker measured it.")
        self.queue_depth = gauge("queued_requests", "Requests waiting for a worker.")
        self.model_queue_depth = gauge("model_queued_requests", "Of these, those that wait for the model.", "model")
        self.in_flight = gauge("in_flight_requests", "Requests at workers.")
        self.ready_workers = gauge("ready_workers", "Workers that take requests and do not fail them.")
        self.model_ready_workers = gauge("model_ready_workers", "Of these, the workers that hold the model.", "model")
        self.model_images = counter("model_images", "Images by the model that drew them.", "model")
        self.replans = counter("replans", "New plans, by reason.", "reason")
        self.plan_revision = gauge("plan_revision", "Revision of the plan that requests are decided by.")
        self.watch_restarts = counter("watch_restarts", "Watches of the API server begun anew.", "resource")
        self.watch_heard = gauge(
            "watch_heard_timestamp_seconds", "Unix time of the last message of a watch of the API server.", "resource"
        )
        self.ejections = counter("worker_ejections", "Times that a worker was left out, by reason.", "reason")
        self.left_out = gauge(
            "left_out_workers",
            "Workers left out or on trial although they say that they are ready, by reason.",
            "reason",
        )
        self.unauthenticated = counter("unauthenticated", "Calls refused for want of an identity, by reason.", "reason")
        self.reloads = counter("secret_reloads", "Readings of a mounted Secret, by what it is for.", "use", "outcome")
        self.certificate_end = gauge(
            "certificate_end_timestamp_seconds",
            "Unix time at which a certificate of the gateway ends, by whom it is shown to.",
            "use",
        )
        self.safety_checks = counter("safety_checks", "Questions to the pool's classifiers.", "place", "outcome")
        self.safety_check_duration = seconds("safety_check", "Time to the answer of the pool's classifiers.", "place")
        self.results = seconds("results", "Time to keep the images of a request for links, by how it ended.", "outcome")
        self.signing = seconds("signing", "Time to sign an image by C2PA, by how it ended.", "outcome")
        self.audits = counter("audits", "Audits ended, by outcome.", "outcome")
        self.audit_samples = gauge("audit_samples", "Images that wait to be audited.")
        self.corrections_revision = gauge("corrections_revision", "Revision of the corrections in use; 0: none.")
        self.pressure = gauge("pressure", "Share of the SLO's slack that the backlog eats.")
        self.tasks = gauge("tasks", "Tasks of the event loop.")
        self.store_failures = counter("store_failures", "Calls to the latent store that failed, by reason.", "reason")
        self.store_trouble = gauge("store_trouble", "1 while the latent store does not serve, by reason.", "reason")
        self.cache_bytes = gauge("cache_bytes", "Bytes of cached latents.")
        self.cache_entries = gauge("cache_entries", "Prompts with cached latents.")

    def show_ready(self, model: str, count: int) -> None:
        """So many workers hold this model and take requests."""
        if self._ready.get(model) == count:
            return  # it is told far more often than it changes
        self._ready[model] = count
        self.model_ready_workers.labels(model).set(count)
        self.ready_workers.set(self._ready.total())

    def show_queued(self, model: str, count: int) -> None:
        """So many requests wait for this model."""
        if self._queued.get(model) == count:
            return
        self._queued[model] = count
        self.model_queue_depth.labels(model).set(count)
        self.queue_depth.set(self._queued.total())

    def count_ejection(self, reason: str) -> None:
        """Count a worker that is left out."""
        self.ejections.labels(reason).inc()

    def show_left_out(self, reasons: Iterable[EjectedReason]) -> None:
        """Show how many workers are left out now, for each reason."""
        counts = Counts(reasons)
        for reason in EjectedReason:
            if reason is not EjectedReason.NONE:
                self.left_out.labels(reason).set(counts[reason])

    def count_reload(self, use: str, in_force: bool) -> None:
        """Count a reading of a mounted Secret, at the start and after every change."""
        self.reloads.labels(use, "in_force" if in_force else "refused").inc()
