"""Is the quality that is promised the quality that is served? `make bench-quality` -> bench/results/quality.md, a plot.

The embedded model in a real local pool, two workers. Load is a share of the exact images a second that the machine
draws. Every image's exact one is drawn afterwards, and the exact scorer judges both. There are four parts: promises,
coarse, drift, cost. Figures are written after each, the page when all are there. `--only drift` measures that part anew
and keeps the others' figures, so a run that was cut is completed by its missing parts.

    images                      judged pairs of the first part, at 0.7 of capacity
    promise_error_points_max    of all levels and bands with 30 images or more: promised - measured quality, the largest
    burst_quality_percent       of exact, of images served at twice the capacity
    burst_violation_percent     of these requests late, refused or failed
    coarse                      the same figures of a pool without the levels that lose nothing here
    drift_audits                from the change of the captions until QualityKept is False
    audit_cost_p99_ms           p99 with all images audited - p99 without, mean of the pairs; of 0.5 and 0.9 load the
                                larger. Beside it its standard error: how far pairs lie apart
"""

import asyncio
import json
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from bench.kit.arguments import BenchParser
from bench.kit.machine import load_average
from bench.kit.output import say, write_json
from bench.quality.drift import DriftLook, measure_drift
from bench.quality.page import band_rows, write_report
from bench.quality.serving import BenchPool, SentCaption, as_audits, exact_rps, send_closed, send_open, serving
from t2i_policy.audits import AuditSummary, by_band, summarise
from t2i_policy.profile import LevelProfile
from t2i_policy.profile_document import parse_profile
from t2i_scenes import model_path
from t2ictl.commands.demo import demo_samples

QUICK = {"requests": 24, "coarse": 12, "burst": 12, "drift": 48, "cost": 16, "pairs": 1}
PARSER = BenchParser(__doc__, "quality", quick=QUICK, page=True)
PARSER.add_argument("--requests", type=int, default=1000, help="images that promises are compared with")
PARSER.add_argument("--coarse", type=int, default=600, help="the same of a pool of coarser levels")
PARSER.add_argument("--burst", type=int, default=200, help="requests at twice the capacity, of each of the two")
PARSER.add_argument("--drift", type=int, default=320, help="images after the captions have changed")
PARSER.add_argument("--cost", type=int, default=150, help="requests of each run with and without audits")
PARSER.add_argument("--pairs", type=int, default=4, help="such runs, at each load")
PARTS = ("promises", "coarse", "drift", "cost")
PARSER.add_argument(
    "--only", nargs="+", choices=PARTS, help="measure these parts and keep the others' figures of the file"
)
SLO_S = 1.5
LOADS = (0.5, 0.9)
AUDITED = ("", "{judge: scenes, auditPerMille: 1000}")  # spec.quality of the runs that are compared
FEWEST = 30  # images of a level and band; fewer say nothing to a point
WARM = 24  # captions that measure capacity
Figures = dict[str, Any]
#: Without the levels that lose nothing here: then levels and bands differ in what they promise.
COARSE = BenchPool(
    levels="{skippedSteps: 0}, {skippedSteps: 3}, {skippedSteps: 6}, {skippedSteps: 9}, {numInferenceSteps: 6}, "
    "{numInferenceSteps: 4}, {numInferenceSteps: 3}",
    harmless=6,
)
MeasurePart = Callable[[Any, Path], Awaitable[Figures]]


def shipped_profile() -> LevelProfile:
    """The embedded model's own."""
    return parse_profile((model_path() / "profile.json").read_text())


async def measure_promises(options: Any, folder: Path) -> Figures:
    """Of the levels that the model is best served at."""
    return await promised_and_measured(BenchPool(), options.requests, options.burst, folder)


async def measure_coarse(options: Any, folder: Path) -> Figures:
    """Of levels that lose more."""
    return {"coarse": await promised_and_measured(COARSE, options.coarse, options.burst, folder)}


async def promised_and_measured(served: BenchPool, requests: int, burst_requests: int, folder: Path) -> Figures:
    """At 0.7 of capacity and in a burst."""
    samples, profile = demo_samples(requests + burst_requests + WARM, 7), shipped_profile()
    async with serving(served, folder) as pool:
        capacity = await exact_rps(pool, samples[:WARM])
        say(f"capacity: {capacity:.1f} exact images a second")
        calm, burst = samples[WARM : WARM + requests], samples[WARM + requests :]
        sent = await send_open(pool, calm, 0.7 * capacity, "promises, at 0.7 of capacity")
        pressed = await send_open(pool, burst, 2 * capacity, "burst, at twice the capacity")
        exact = await send_closed(pool, [one.sample for one in (*sent, *pressed)], "exact, for comparison", exact=True)
    audits = as_audits([*sent, *pressed], exact, profile)
    bands = {band: summarise(inside) for band, inside in by_band(audits).items()}
    return {
        "capacity_rps": capacity,
        "images": len(audits),
        "whole": asdict(summarise(audits)),
        "bands": band_rows(bands),
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


async def measure_drifting(options: Any, folder: Path) -> Figures:
    found = await measure_drift(
        options.drift // 3, options.drift, max(4, options.drift // 8), shipped_profile(), folder
    )
    return {
        "drift_audits": None if found.noticed is None else found.noticed.audits,
        "drift": {
            "noticed": _look_row(found.noticed),
            "corrected": _look_row(found.corrected),
            "true_loss": found.true_loss,
            "true_error": found.true_error,
            "profile_loss": found.profile_loss,
            "looks": [_look_row(look) for look in found.looks],
        },
    }


def _look_row(look: DriftLook | None) -> Figures | None:
    if look is None:
        return None
    return {
        "audits": look.audits,
        "seconds": round(look.seconds, 1),
        "measured_percent": look.measured_percent,
        "promised_percent": look.promised_percent,
    }


async def measure_cost(options: Any, folder: Path) -> Figures:
    """Runs with and without audits in turn, of the same captions at the same arrivals; each goes first as often."""
    rows: list[Figures] = []
    capacity = 0.0
    for pair in range(options.pairs):
        for audits in AUDITED[:: -1 if pair % 2 else 1]:
            async with serving(BenchPool(audits=audits), folder / f"{pair}-{bool(audits)}") as pool:
                found_rps = await exact_rps(pool, demo_samples(WARM, 7))  # in each pool: it warms the workers
                capacity = capacity or found_rps
                for number, load in enumerate(LOADS):
                    # Never asked at the other load: audits would have drawn these images exactly, and kept them.
                    samples = demo_samples(options.cost, 100 * (number + 1) + pair)
                    name = f"{'with' if audits else 'without'} audits, load {load}"
                    sent = await send_open(pool, samples, load * capacity, name)
                    rows.append({"pair": pair, "load": load, "audits": bool(audits), **_latency(sent)})
    costs = [p99_costs(rows, load) for load in LOADS if rows]
    largest = max(costs, key=lambda cost: cost["p99_ms"], default={"p99_ms": None, "p99_error_ms": None})
    return {
        "audit_cost_p99_ms": largest["p99_ms"],
        "audit_cost_p99_error_ms": largest["p99_error_ms"],
        "costs": costs,
        "cost_capacity_rps": capacity,
        "runs": rows,
    }


def _latency(sent: Sequence[SentCaption]) -> Figures:
    took_ms = [1e3 * one.took_s for one in sent if one.generated is not None]
    return {
        "p50_ms": float(np.percentile(took_ms, 50)),
        "p99_ms": float(np.percentile(took_ms, 99)),
        "violation_percent": violation_percent(sent),
    }


def p99_costs(rows: Sequence[Figures], load: float) -> Figures:
    """The mean of the pairs' differences and its standard error; None of one pair, which tells nothing of it."""
    found = {(row["pair"], row["audits"]): row["p99_ms"] for row in rows if row["load"] == load}
    apart = [found[pair, True] - without for (pair, audits), without in found.items() if not audits]
    error = float(np.std(apart, ddof=1) / np.sqrt(len(apart))) if len(apart) > 1 else None
    return {"load": load, "p99_ms": float(np.mean(apart)), "p99_error_ms": error}


MEASURES: dict[str, MeasurePart] = {
    "promises": measure_promises,
    "coarse": measure_coarse,
    "drift": measure_drifting,
    "cost": measure_cost,
}


async def measure(options: Any, folder: Path) -> None:
    """Write what is known after each part. Without `--only` nothing of before is kept."""
    kept = options.only is not None and options.out.exists()
    figures: Figures = json.loads(options.out.read_text()) if kept else {}
    for part in options.only or PARTS:
        began_s = time.monotonic()
        figures |= await MEASURES[part](options, folder / part)
        facts = {"minutes": (time.monotonic() - began_s) / 60, "load_average": load_average()}
        figures["parts"] = {**figures.get("parts", {}), part: facts}
        write_json(options.out, figures)
    if missing := [part for part in PARTS if part not in figures["parts"]]:
        say(f"no page yet, as parts are missing: --only {' '.join(missing)} measures them")
        return
    write_report(figures, COARSE.harmless, options.results)


def main() -> None:
    options = PARSER.parse()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(options, Path(folder)))


if __name__ == "__main__":
    main()
