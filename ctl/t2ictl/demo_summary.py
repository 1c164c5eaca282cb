"""What a demo says in the end: how many images came, from which levels and models, and what they are worth."""

import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from t2i_policy.level import Level
from t2i_profiler.images import Sample
from t2i_profiler.judges.scenes import scene_quality
from t2i_runtime.level_messages import to_level
from t2ictl.client import Generated
from t2ictl.contact_sheet import SheetCell, write_sheet

Cost = Callable[[Level], float]  # in guided steps of the pool's own model


@dataclass(frozen=True, slots=True)
class Outcome:
    """One caption's result; `generated` None when it failed with `error`. `asked`: the model that it demanded."""

    sample: Sample
    generated: Generated | None
    latency_ms: float
    error: str = ""
    asked: str = ""


def score(outcome: Outcome) -> float:
    """The image's score by the exact scorer, 0 for a failed request."""
    if outcome.generated is None:
        return 0.0
    return scene_quality(outcome.generated.data, outcome.sample)


def served_level(generated: Generated) -> Level:
    """The level that really ran."""
    return to_level(generated.done.served)


def own_cost(level: Level) -> float:
    """Where all levels are of one model."""
    return level.cost


def summarise(
    served: Sequence[Outcome], exact: Sequence[Outcome], base_steps: int, cost: Cost = own_cost
) -> dict[str, object]:
    """The summary: failures count as requests with no image; scores and latencies are of those that got one."""
    images = [outcome for outcome in served if outcome.generated is not None]
    levels = [served_level(outcome.generated) for outcome in images if outcome.generated is not None]
    mean, mean_exact = _mean_score(images), _mean_score([o for o in exact if o.generated is not None])
    latencies = sorted(outcome.latency_ms for outcome in images)
    counts = Counter(level.label(base_steps) for level in sorted(levels))
    return {
        "requests": len(served),
        "served": len(images),
        "failed": len(served) - len(images),
        "cache_hits": sum(level.needs_latent for level in levels),
        "levels": dict(counts),
        "mean_score": round(mean, 4),
        "mean_score_exact": round(mean_exact, 4),
        "quality_percent": round(100 * mean / mean_exact, 1) if mean_exact else 0.0,
        "p50_ms": round(statistics.median(latencies), 1) if latencies else 0.0,
        "p95_ms": round(float(np.percentile(latencies, 95)), 1) if latencies else 0.0,
        "steps_saved_percent": round(100 * (1 - sum(map(cost, levels)) / (base_steps * len(levels))), 1)
        if levels
        else 0.0,
        "errors": dict(Counter(outcome.error for outcome in served if outcome.error)),
    }


def by_model(
    served: Sequence[Outcome], exact: Sequence[Outcome], names: Mapping[str, str]
) -> dict[str, dict[str, object]]:
    """What each model drew, and its quality as promised and as scored.

    `exact` goes with `served`; `names`: what people call each model, by its name in levels. Quality is in percent of
    the exact images of a model's captions. It is None where a model drew nothing; promises are None where nothing it
    drew was measured.
    """
    pairs: dict[str, list[_Pair]] = {model: [] for model in names}
    for one, other in zip(served, exact, strict=True):
        if one.generated is not None and other.generated is not None:
            pairs[served_level(one.generated).model].append(_Pair(one, other))
    return {names[model]: _told_of(own) for model, own in pairs.items()}


class _Pair(NamedTuple):
    served: Outcome
    exact: Outcome


def _told_of(pairs: Sequence[_Pair]) -> dict[str, object]:
    served, best = [pair.served for pair in pairs], _mean_score([pair.exact for pair in pairs])
    told = (_promised_percent(one.generated) for one in served if one.generated is not None)
    promised = [percent for percent in told if percent is not None]
    return {
        "images": len(served),
        "demanded": sum(bool(one.asked) for one in served),
        "quality_percent": round(100 * _mean_score(served) / best, 1) if best else None,
        "promised_percent": round(statistics.fmean(promised), 1) if promised else None,
        "p50_ms": round(statistics.median(one.latency_ms for one in served), 1) if served else None,
    }


def _promised_percent(generated: Generated) -> float | None:
    """As its decision said; None: nobody measured it."""
    decision = generated.accepted.decision
    return decision.expected_quality_percent if decision.HasField("expected_quality_percent") else None


def _mean_score(outcomes: Sequence[Outcome]) -> float:
    return float(np.mean([score(outcome) for outcome in outcomes])) if outcomes else 0.0


def write_demo_sheet(
    served: Sequence[Outcome], names: Mapping[str, str], base_steps: int, summary: Mapping[str, object], to: Path
) -> None:
    """Every image with its level and score; in a pool of several models (`names`), with the one that drew it."""
    cells = []
    for outcome in served:
        if outcome.generated is not None:
            level = served_level(outcome.generated)
            kind = f"K={level.skipped_steps}" if level.needs_latent else f"{level.cost:g} steps"
            model = f"{names[level.model]}{'!' if outcome.asked else ''} " if len(names) > 1 else ""
            verdict = f"{model}{kind} score {score(outcome):.2f}"
            cells.append(SheetCell(outcome.generated.data, outcome.sample.prompt, verdict))
    title = (
        f"{summary['served']} of {summary['requests']} served · quality {summary['quality_percent']}% of exact · "
        f"{summary['steps_saved_percent']}% of steps saved · exact = {base_steps} steps"
    )
    if len(names) > 1:
        title += " · ! = demanded"
    write_sheet(cells, title, to)
