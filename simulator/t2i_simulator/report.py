"""Outcomes become numbers: one row a policy, and a timeline for plots.

offered = served + shed + failed       failed = expired in the queue + lost with workers
violations = late + shed + failed      late: served after the SLO
quality = mean over served of 100 x (1 - true loss)
picture quality = the same without the loss of diversity of prompts that are asked again, as papers measure it
goodput = 100 x sum over the images in time of (1 - true loss) / offered
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from t2i_policy.level import Ladder, Level
from t2i_simulator.outcomes import Fate, Outcomes
from t2i_simulator.true_loss import Truth

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Row:
    """One policy on one trace. The gaps (points below `bound`) are set by those who also solved the bound."""

    trace: str
    policy: str
    workers: int
    slo_s: float
    offered: int
    served: int
    late: int
    shed: int
    failed: int
    expired: int
    violation_percent: float
    shed_percent: float
    quality_percent: float
    picture_quality_percent: float
    goodput_percent: float
    p50_s: float
    p99_s: float
    mean_skipped_steps: float
    mean_steps_run: float
    served_rps: float
    served_levels: dict[str, int]
    refusals: dict[str, int]
    retries: int
    ejections: int
    plans: int
    moves_per_hour: float
    reloads: int = 0
    quality_gap: float | None = None
    goodput_gap: float | None = None

    @property
    def violations(self) -> int:
        return self.late + self.shed + self.failed

    def holds_against(self, other: "Row") -> bool:
        """At least as good in both violations and quality, or better in goodput."""
        at_least_as_good = (
            self.violation_percent <= other.violation_percent and self.quality_percent >= other.quality_percent
        )
        return at_least_as_good or self.goodput_percent > other.goodput_percent

    def to_document(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class MeasuredRun:
    """Columns by request number: true loss (NaN if not served), with and without what diversity loses, latency, whether
    the SLO was broken."""

    loss: Floats
    picture_loss: Floats
    latency_s: Floats
    violated: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Setting:
    """The run that a row describes. `prompts` holds the number of each request's prompt."""

    trace: str
    ladder: Ladder
    slo_s: float
    workers: int
    prompts: Sequence[int]


def measure(outcomes: Outcomes, setting: Setting, truth: Truth) -> MeasuredRun:
    num = len(outcomes.fates)
    served = np.fromiter((fate is Fate.SERVED for fate in outcomes.fates), np.bool_, num)
    latency_s = np.asarray(outcomes.finished_s) - np.asarray(outcomes.arrived_s)
    similarity, prompts = np.asarray(outcomes.similarity), np.asarray(setting.prompts, np.int64)
    repeated = np.asarray(outcomes.repeated)
    loss, picture_loss = np.full(num, np.nan), np.full(num, np.nan)
    never = np.zeros(num, np.bool_)
    places: dict[Level, list[int]] = {}  # grouped by level, because losses are computed in columns
    for number, level in enumerate(outcomes.levels):
        if level is not None:
            places.setdefault(level, []).append(number)
    for level, numbers in places.items():
        loss[numbers] = truth.losses(level, similarity[numbers], prompts[numbers], repeated[numbers])
        picture_loss[numbers] = truth.losses(level, similarity[numbers], prompts[numbers], never[numbers])
    # An image that comes exactly at the SLO is in time, whatever rounding did to its instant.
    return MeasuredRun(loss, picture_loss, latency_s, ~served | (latency_s > setting.slo_s + 1e-9))


def summarise(policy: str, outcomes: Outcomes, setting: Setting, measured: MeasuredRun) -> Row:
    fates = Counter(outcomes.fates)
    offered, served, shed = len(outcomes.fates), fates[Fate.SERVED], fates[Fate.SHED]
    expired, lost = fates[Fate.EXPIRED], fates[Fate.LOST]
    levels = Counter(level for level in outcomes.levels if level is not None)
    latency_s = measured.latency_s[~np.isnan(measured.loss)]
    hours = max(outcomes.arrived_s[-1] / 3600, 1e-9)
    violations = int(measured.violated.sum())
    return Row(
        trace=setting.trace,
        policy=policy,
        workers=setting.workers,
        slo_s=setting.slo_s,
        offered=offered,
        served=served,
        late=violations - shed - expired - lost,
        shed=shed,
        failed=expired + lost,
        expired=expired,
        violation_percent=100 * violations / offered,
        shed_percent=100 * shed / offered,
        quality_percent=float(100 * (1 - np.nanmean(measured.loss))) if served else 0.0,
        picture_quality_percent=float(100 * (1 - np.nanmean(measured.picture_loss))) if served else 0.0,
        goodput_percent=float(100 * (1 - measured.loss[~measured.violated]).sum() / offered),
        p50_s=float(np.quantile(latency_s, 0.5)) if served else 0.0,
        p99_s=float(np.quantile(latency_s, 0.99)) if served else 0.0,
        mean_skipped_steps=sum(level.skipped_steps * count for level, count in levels.items()) / max(1, served),
        mean_steps_run=sum(outcomes.steps) / max(1, served),
        served_rps=served / max(max(outcomes.finished_s), 1e-9),
        served_levels={level.label(setting.ladder.base_steps): levels[level] for level in _in_order(levels)},
        refusals=dict(sorted(outcomes.refusals.items())),
        retries=sum(outcomes.retries),
        ejections=outcomes.ejections,
        plans=len(outcomes.plans),
        moves_per_hour=sum(plan.moves for plan in outcomes.plans) / hours,
        reloads=len(outcomes.made_moves),
    )


@dataclass(frozen=True, slots=True)
class Timeline:
    """Columns by interval: requests a minute, mean quality (NaN without images), shares of served levels."""

    interval_s: float
    offered_per_min: Floats
    served_per_min: Floats
    violated_per_min: Floats
    quality_percent: Floats
    mix: dict[Level, Floats]


def timeline(outcomes: Outcomes, measured: MeasuredRun, intervals: int = 200) -> Timeline:
    """Each request counts in the interval in which it arrived."""
    arrived_s = np.asarray(outcomes.arrived_s)
    interval_s = max(1.0, float(arrived_s[-1]) / intervals)
    place = (arrived_s / interval_s).astype(np.int64)
    num = int(place[-1]) + 1
    served = ~np.isnan(measured.loss)
    counts = np.bincount(place[served], minlength=num)
    lost = np.bincount(place[served], measured.loss[served], minlength=num)
    with np.errstate(invalid="ignore", divide="ignore"):
        quality = 100 * (1 - lost / counts)
    mix = {}
    for level in _in_order({level for level in outcomes.levels if level is not None}):
        own = np.fromiter((one == level for one in outcomes.levels), np.bool_, len(place))
        mix[level] = np.bincount(place[own], minlength=num) / np.maximum(1, counts)
    return Timeline(
        interval_s=interval_s,
        offered_per_min=_per_minute(np.bincount(place, minlength=num), interval_s),
        served_per_min=_per_minute(counts, interval_s),
        violated_per_min=_per_minute(np.bincount(place[measured.violated], minlength=num), interval_s),
        quality_percent=quality,
        mix=mix,
    )


def _per_minute(counts: npt.NDArray[np.int64], interval_s: float) -> Floats:
    return np.asarray(counts * (60 / interval_s), np.float64)


def _in_order(levels: "set[Level] | Counter[Level]") -> list[Level]:
    return sorted(levels, key=lambda level: (-level.cost, level.skipped_steps))
