"""Is the quality that is promised the quality that is served? `make bench-quality` -> bench/results/quality.md, a plot.

The embedded model in a real local pool, two workers. Load is a share of the exact images a second that the machine
draws. Every image's exact one is drawn afterwards, and the exact scorer judges both.

    images                      judged pairs of the first part, at 0.7 of capacity
    promise_error_points_max    of all levels and bands with 30 images or more: promised - measured quality, the largest
    burst_quality_percent       of exact, of images served at twice the capacity
    burst_violation_percent     of these requests late, refused or failed
    drift_audits                from the change of the captions until QualityKept is False
    audit_cost_p99_ms           p99 with all images audited - p99 without, paired; of 0.5 and 0.9 load the larger
"""

import asyncio
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.kit.arguments import BenchParser
from bench.kit.machine import load_average
from bench.kit.output import say, write_json
from bench.quality.drift import DriftFound, measure_drift
from bench.quality.page import write_report
from bench.quality.serving import BenchPool, SentCaption, as_audits, exact_rps, send_closed, send_open, serving
from t2i_policy.audits import AuditSummary, by_band, summarise
from t2i_policy.profile import LevelProfile, parse_profile
from t2i_scenes import model_path
from t2ictl.commands.demo import demo_samples

QUICK = {"requests": 24, "burst": 12, "drift": 48, "cost": 16, "pairs": 1}
PARSER = BenchParser(__doc__, "quality", quick=QUICK, page=True)
PARSER.add_argument("--requests", type=int, default=1000, help="images that promises are compared with")
PARSER.add_argument("--burst", type=int, default=200, help="requests at twice the capacity")
PARSER.add_argument("--drift", type=int, default=320, help="images after the captions have changed")
PARSER.add_argument("--cost", type=int, default=150, help="requests of each run with and without audits")
PARSER.add_argument("--pairs", type=int, default=2, help="such runs, at each load")
SLO_S = 1.5
LOADS = (0.5, 0.9)
FEWEST = 30  # images of a level and band; fewer say nothing to a point
WARM = 24  # captions that measure capacity


async def measure_promises(options: Any, profile: LevelProfile, folder: Path) -> dict[str, Any]:
    """Promised and measured, at 0.7 of capacity and in a burst."""
    samples = demo_samples(options.requests + options.burst + WARM, 7)
    async with serving(BenchPool(), folder) as pool:
        capacity = await exact_rps(pool, samples[:WARM])
        say(f"capacity: {capacity:.1f} exact images a second")
        calm, burst = samples[WARM : WARM + options.requests], samples[WARM + options.requests :]
        sent = await send_open(pool, calm, 0.7 * capacity, "promises, at 0.7 of capacity")
        pressed = await send_open(pool, burst, 2 * capacity, "burst, at twice the capacity")
        exact = await send_closed(pool, [one.sample for one in (*sent, *pressed)], "exact, for comparison", exact=True)
    audits = as_audits([*sent, *pressed], exact, profile)
    bands = {band: summarise(inside) for band, inside in by_band(audits).items()}
    return {
        "capacity_rps": capacity,
        "images": len(audits),
        "whole": summarise(audits),
        "bands": bands,
        "promise_error_points_max": largest_error(bands),
        "promise_short_points_max": largest_error(bands, short=True),
        "burst_quality_percent": quality_percent(pressed, exact[len(sent) :]),
        "burst_violation_percent": violation_percent(pressed),
        "calm_violation_percent": violation_percent(sent),
    }


def largest_error(bands: Mapping[Any, AuditSummary], short: bool = False) -> float | None:
    """In points, among bands, or other parts, with enough images; `short`: of those that were worse than promised."""
    off = [one.measured_loss - one.promised_loss for one in bands.values() if one.num_audits >= FEWEST]
    return max((100 * (one if short else abs(one)) for one in off), default=None)


def quality_percent(sent: Sequence[SentCaption], exact: Sequence[SentCaption]) -> float:
    """Of the images that came."""
    pairs = [(one.quality, other.quality) for one, other in zip(sent, exact, strict=True) if one.generated]
    served, best = (sum(part) for part in zip(*pairs, strict=True)) if pairs else (0.0, 1.0)
    return 100 * served / max(best, 1e-9)


def violation_percent(sent: Sequence[SentCaption]) -> float:
    return 100 * float(np.mean([one.is_late(SLO_S) for one in sent]))


async def measure_cost(options: Any, capacity: float, folder: Path) -> list[dict[str, Any]]:
    """Runs with and without audits in turn, of the same captions at the same arrivals."""
    rows = []
    for pair in range(options.pairs):
        for audits in ("", "{judge: scenes, auditPerMille: 1000}"):
            async with serving(BenchPool(audits=audits), folder / f"cost-{pair}-{bool(audits)}") as pool:
                for load in LOADS:
                    samples = demo_samples(options.cost, 100 + pair)
                    name = f"{'with' if audits else 'without'} audits, load {load}"
                    sent = await send_open(pool, samples, load * capacity, name)
                    took_ms = [1e3 * one.took_s for one in sent if one.generated is not None]
                    rows.append(
                        {
                            "pair": pair,
                            "load": load,
                            "audits": bool(audits),
                            "p50_ms": float(np.percentile(took_ms, 50)),
                            "p99_ms": float(np.percentile(took_ms, 99)),
                            "violation_percent": violation_percent(sent),
                        }
                    )
    return rows


def p99_cost_ms(rows: Sequence[dict[str, Any]], load: float) -> float:
    """Mean of the pairs' differences."""

    def mean(audits: bool) -> float:
        return float(np.mean([row["p99_ms"] for row in rows if row["load"] == load and row["audits"] is audits]))

    return mean(True) - mean(False)


def drift_figures(found: DriftFound) -> dict[str, Any]:
    def at(look: Any) -> dict[str, Any] | None:
        return None if look is None else {"audits": look.audits, "seconds": round(look.seconds, 1)}

    return {
        "noticed": at(found.noticed),
        "corrected": at(found.corrected),
        "true_loss": found.true_loss,
        "true_error": found.true_error,
        "profile_loss": found.profile_loss,
    }


async def measure(options: Any, folder: Path) -> None:
    began_s = time.monotonic()
    profile = parse_profile((model_path() / "profile.json").read_text())
    promises = await measure_promises(options, profile, folder / "promises")
    drift = await measure_drift(
        options.drift // 3, options.drift, max(4, options.drift // 8), profile, folder / "drift"
    )
    rows = await measure_cost(options, promises["capacity_rps"], folder)
    minutes = (time.monotonic() - began_s) / 60
    costs = {load: p99_cost_ms(rows, load) for load in LOADS} if rows else {}
    write_report(promises, drift, rows, costs, minutes=minutes, folder=options.results)
    bands = [
        {"level": band.level.label(profile.base_steps), "similarity_min": band.similarity_min, **_told(summary)}
        for band, summary in promises["bands"].items()
    ]
    plain = {name: value for name, value in promises.items() if name not in ("bands", "whole")}
    figures = {
        **plain,
        "drift_audits": None if drift.noticed is None else drift.noticed.audits,
        "drift": drift_figures(drift),
        "audit_cost_p99_ms": max(costs.values(), default=None),
        "bands": bands,
        "runs": rows,
        "load_average": load_average(),
    }
    write_json(options.out, figures)


def _told(summary: AuditSummary) -> dict[str, Any]:
    return {name: getattr(summary, name) for name in summary.__slots__}


def main() -> None:
    options = PARSER.parse()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(options, Path(folder)))


if __name__ == "__main__":
    main()
