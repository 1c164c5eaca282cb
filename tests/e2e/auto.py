"""The paper's claim on real pods: a load step, served by the planner's mix, beside exact only and cache only.

"planned" names no levels: it has those of the profile's frontier. "ladder of before" has skips and short schedules.

The embedded model runs for real, and the scorer judges every image. `make e2e-auto`; not collected by `make e2e`, as
the four runs take a quarter of an hour and say something only on a machine that has nothing else to do.
"""

import asyncio
import json
import time
from collections.abc import Sequence

import pytest

from e2e_cluster import Cluster, Document
from e2e_load import Load, Outcome, levels_of, prompts, steady, summary
from e2e_pools import RunningPool, changes_of, follow_mix, namespace_of, pool_document, running_pool
from e2e_report import ROOT, record
from t2i_profiler.images import to_pixels
from t2i_scenes import score_image

pytestmark = pytest.mark.timeout(1800)
WORKERS, SCENES = 2, 30
SLO_S, FLOOR_PERCENT = 4.0, 85
#: Load in exact capacities, and for how long: calm, the step, calm again.
PHASES = ((0.4, 45.0), (1.6, 60.0), (0.4, 60.0))
WINDOW_S = 5.0
EXACT: list[Document] = [{"skippedSteps": 0}]
SKIPS = [*EXACT, *({"skippedSteps": steps} for steps in (3, 6, 9))]
SHORT = [{"numInferenceSteps": steps} for steps in (8, 6, 4)]
RUNS: dict[str, list[Document]] = {
    "planned": [],
    "ladder of before": [*SKIPS, *SHORT],
    "cache only": SKIPS,
    "exact only": EXACT,
}
SERIES = ROOT / "build" / "bench" / "e2e-auto.json"


def document(name: str, levels: list[Document]) -> Document:
    """A pool of the embedded model."""
    resources = {"requests": {"cpu": "400m", "memory": "512Mi"}, "limits": {"memory": "1536Mi"}}
    return pool_document(
        name,
        levels=levels,
        slo={"latencyMilliseconds": int(1000 * SLO_S), "minQualityPercent": FLOOR_PERCENT},
        workerGroups=[{"name": "cpu", "workers": WORKERS, "template": {"resources": resources}}],
        gateway={"replicas": 1, "maxQueuedRequests": 64},
    )


async def capacity_rps(address: str) -> float:
    """Exact images a second with full batches: forty at once, by the time between the fifth and the last."""
    load = Load(address, limit_s=120, exact=True)
    outcomes = await load.run([0.0] * 40, prompts(40, seed=77))
    ended = sorted(one.ended_s for one in outcomes if one.ok)
    assert len(ended) > 20, summary(outcomes, SLO_S)
    return (len(ended) - 5) / (ended[-1] - ended[4])


def instants_of(exact_rps: float) -> list[float]:
    """The load of `PHASES`."""
    found, begin_s = [], 0.0
    for number, (share, seconds) in enumerate(PHASES):
        found += [begin_s + at_s for at_s in steady(share * exact_rps, seconds, seed=number)]
        begin_s += seconds
    return found


def windows(outcomes: Sequence[Outcome], scores: dict[int, float], length_s: float) -> list[dict[str, float | None]]:
    """Offered, served, violations, quality and steps by the time of arrival."""
    rows = []
    for number in range(int(length_s / WINDOW_S)):
        here = [one for one in outcomes if number * WINDOW_S <= one.at_s < (number + 1) * WINDOW_S]
        done = [one for one in here if one.ok]
        judged = [scores[id(one)] for one in done]
        steps = [one.cost for one in done]
        rows.append(
            {
                "at_s": (number + 0.5) * WINDOW_S,
                "offered_rps": len(here) / WINDOW_S,
                "served_rps": len(done) / WINDOW_S,
                "violations_rps": sum(not one.ok or one.latency_s > SLO_S for one in here) / WINDOW_S,
                "quality": sum(judged) / len(judged) if judged else None,
                "steps": sum(steps) / len(steps) if steps else None,
            }
        )
    return rows


async def one_run(pool: RunningPool, exact_rps: float | None) -> tuple[float, dict[str, object]]:
    """Calibrate if need be, warm the cache, then the load step."""
    address = pool.service_address
    exact_rps = exact_rps or await capacity_rps(address)
    warm = Load(address, limit_s=60)
    await warm.run([0.5 * number for number in range(SCENES)], prompts(SCENES, seed=5, scenes=SCENES))
    load, seen, stop = Load(address, limit_s=2 * SLO_S, tries=1), list[tuple[float, str]](), asyncio.Event()
    instants = instants_of(exact_rps)
    load.began_s = time.monotonic()
    async with asyncio.TaskGroup() as group:
        following = group.create_task(follow_mix(pool, load.now_s, seen, stop))
        outcomes = await load.run(instants, prompts(len(instants), seed=5, scenes=SCENES))
        stop.set()
        await following
    scores = {id(one): score_image(to_pixels(one.image), one.prompt.scene).quality for one in outcomes if one.ok}
    bad = [one for one in outcomes if not one.ok or one.latency_s > SLO_S]
    length_s = sum(seconds for _, seconds in PHASES)
    return exact_rps, {
        **summary(outcomes, SLO_S),
        "violations_percent": round(100 * len(bad) / len(outcomes), 1),
        "mean_score": round(sum(scores.values()) / len(scores), 4),
        "levels": levels_of(outcomes),
        "mixes": changes_of(seen),
        "windows": windows(outcomes, scores, length_s),
    }


async def test_load_step_beside_fixed_and_cache_only(cluster: Cluster, release: str) -> None:
    """The mix moves to cheaper levels and back, fewer requests are late than with either rival, above the floor."""
    series: dict[str, dict[str, object]] = {}
    exact_rps: float | None = None
    for name, levels in RUNS.items():
        with (
            namespace_of(cluster, f"t2i-auto-{name.split()[0]}") as namespace,
            running_pool(cluster, namespace, document("auto", levels)) as pool,
        ):
            exact_rps, series[name] = await one_run(pool, exact_rps)
            numbers = {key: value for key, value in series[name].items() if key not in ("windows", "mixes")}
            record(
                f"load step, {name}",
                "scenes",
                **numbers,
                restarts=pool.restarts(),
                recovery_s=None,
                exact_capacity_rps=round(exact_rps, 2),
            )
    SERIES.write_text(json.dumps({"exact_rps": exact_rps, "slo_s": SLO_S, "phases": PHASES, "runs": series}, indent=1))
    quality = {name: float(str(numbers["mean_score"])) for name, numbers in series.items()}
    late = {name: float(str(numbers["violations_percent"])) for name, numbers in series.items()}
    assert quality["planned"] >= FLOOR_PERCENT / 100 * quality["exact only"], quality
    assert late["planned"] <= min(late.values()), late
