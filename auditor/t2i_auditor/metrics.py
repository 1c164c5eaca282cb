"""The auditor's metrics. docs/metrics.md lists them, and a test compares. Labels are bounded: levels and bands."""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry

from t2i_policy.audits import AuditSummary, BandOf
from t2i_policy.kept_promise import Z
from t2i_runtime.metrics import MetricMaker

PREFIX = "t2i_audit"
ALL = "all"


class AuditorMetrics:
    """`base_steps`: of the full schedule, by which levels are named."""

    def __init__(self, registry: CollectorRegistry, base_steps: int) -> None:
        make = MetricMaker(PREFIX, registry)
        counter, gauge = make.counter, make.gauge
        self._base_steps = base_steps
        self._shown: set[BandOf] = set()
        self._corrected: set[BandOf] = set()
        self.pairs = counter("pairs", "Pairs that gateways sent, by how they ended.", "outcome")
        self.judging = make.seconds("judging", "Time to score one pair.")
        self.loss = gauge("loss", "Measured loss of recent audits, a fraction of exact quality.", "level", "band")
        self.loss_low = gauge("loss_low", "Lower end of its interval of 95 %.", "level", "band")
        self.loss_high = gauge("loss_high", "Upper end of its interval of 95 %.", "level", "band")
        self.promised = gauge("promised_loss", "What was promised for the same images.", "level", "band")
        self.recent = gauge("recent", "Recent audits.", "level", "band")
        self.added = gauge("added_loss", "The correction in force.", "level", "band")
        self.revision = gauge("corrections_revision", "Revision of the corrections in force; 0: none.")
        self.ready = gauge("judge_ready", "1 while the judge scores.")
        self.reloads = counter("secret_reloads", "Readings of the mounted certificate.", "outcome")
        self.certificate_end = gauge(
            "certificate_end_timestamp_seconds", "Unix time at which the auditor's certificate ends; 0 without one."
        )

    def count_reload(self, in_force: bool) -> None:
        self.reloads.labels("in_force" if in_force else "refused").inc()

    def show(self, whole: AuditSummary, bands: Mapping[BandOf, AuditSummary], added: Mapping[BandOf, float]) -> None:
        """What recent audits say, and the corrections in force."""
        for band in self._shown - {*bands}:  # none of its audits is recent any more
            for gauge in (self.loss, self.loss_low, self.loss_high, self.promised, self.recent):
                gauge.remove(*self._labels(band))
        self._shown = {*bands}
        self._show((ALL, ALL), whole)
        for band, summary in bands.items():
            self._show(self._labels(band), summary)
        for band in self._corrected - {*added}:
            self.added.remove(*self._labels(band))
        self._corrected = {*added}
        for band, loss in added.items():
            self.added.labels(*self._labels(band)).set(loss)

    def _labels(self, band: BandOf) -> tuple[str, str]:
        near = f"{band.similarity_min:g}" if band.level.needs_latent else "none"
        return band.level.label(self._base_steps), near

    def _show(self, labels: tuple[str, str], summary: AuditSummary) -> None:
        reach = Z * summary.standard_error
        self.loss.labels(*labels).set(summary.measured_loss)
        self.loss_low.labels(*labels).set(summary.measured_loss - reach)
        self.loss_high.labels(*labels).set(summary.measured_loss + reach)
        self.promised.labels(*labels).set(summary.promised_loss)
        self.recent.labels(*labels).set(summary.num_audits)
