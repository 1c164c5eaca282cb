"""Two models in one pool on a real node: each answers, and the mix follows a load step by a reload nobody notices."""

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

import pytest
from openai import AsyncOpenAI

from e2e_cluster import Cluster, Document, until
from e2e_http import HttpLoad
from e2e_load import Load, Outcome, Prompt, prompts, steady, summary
from e2e_pools import RunningPool, namespace_of, pool_document, running_pool
from e2e_report import record
from t2i_profiler.images import to_pixels
from t2i_scenes import score_image

pytestmark = pytest.mark.timeout(900)
#: What clients call each model, and its name in levels.
NAMES = {"scenes": "", "distilled": "distilled"}
DISTILLED = {
    "name": "distilled",
    "source": "builtin://scenes/distilled",
    "numInferenceSteps": 4,
    "guidanceScalePercent": 100,
}
SLO_S, FLOOR_PERCENT = 6.0, 70
#: Load in exact images that one worker of the full model makes, and for how long.
CALM, CALM_S = 0.4, 45.0
STEP, LEAST_S, MOST_S = 1.5, 100.0, 180.0
REQUESTS = 1000
JUDGED, JUDGING = 150, 0.8  # requests whose exact image is drawn afterwards, at which load
LOOK_S = 1.0
AT_FIRST = {"reference": 1, "distilled": 2}
WORKERS = 3


@pytest.fixture(scope="module")
def two_models(cluster: Cluster, release: str) -> Iterator[RunningPool]:
    """One worker with the embedded model, two with the one distilled from it; any of them may load the other."""
    resources = {"requests": {"cpu": "200m", "memory": "512Mi"}, "limits": {"memory": "1536Mi"}}
    template = {"template": {"resources": resources}}
    document = pool_document(
        "models",
        levels=[{"skippedSteps": 0}],
        mix={"mode": "Auto", "moves": "Reload"},
        slo={"latencyMilliseconds": int(1000 * SLO_S), "minQualityPercent": FLOOR_PERCENT},
        workerGroups=[
            {"name": "full", "workers": 1, **template},
            {"name": "light", "workers": 2, "model": DISTILLED, **template},
        ],
        gateway={"replicas": 1, "maxQueuedRequests": 128},
    )
    with namespace_of(cluster, "t2i-models") as namespace, running_pool(cluster, namespace, document) as pool:
        yield pool


def ready_by_model(pool: RunningPool) -> Mapping[str, int]:
    """Workers that serve each model, as the status says."""
    models: Sequence[Document] = pool.status().get("models", [])
    return {model["name"]: model["ready"] for model in models}


@dataclass(slots=True)
class HeldModels:
    """Ready workers by model as the status said: each change, with its instant on the load's clock."""

    pool: RunningPool
    changes: list[tuple[float, Mapping[str, int]]] = field(default_factory=list)

    async def follow(self, load: Load, stop: asyncio.Event) -> None:
        """Until `stop`."""
        while not stop.is_set():
            found = await asyncio.to_thread(ready_by_model, self.pool)
            if not self.changes or found != self.changes[-1][1]:
                self.changes.append((round(load.now_s(), 1), found))
            await asyncio.sleep(LOOK_S)

    def moved_s(self, since_s: float) -> float | None:
        """When two workers of the full model were ready for the first time."""
        return next((at_s for at_s, found in self.changes if at_s >= since_s and found.get("reference", 0) == 2), None)

    def reload_s(self, until_s: float) -> float:
        """For how long a worker was away before."""
        away = [at_s for at_s, found in self.changes if at_s < until_s and sum(found.values()) < WORKERS]
        return round(until_s - away[0], 1) if away else 0.0


@dataclass(slots=True)
class BothDoors:
    """Requests in turn by gRPC and by HTTP."""

    by_grpc: Load
    by_http: HttpLoad

    @classmethod
    def of(cls, pool: RunningPool) -> "BothDoors":
        """Of a pool."""
        return cls(Load(pool.service_address, limit_s=60), HttpLoad(pool.http_address, limit_s=60))

    async def run(self, instants: Sequence[float], asked: Sequence[Prompt]) -> list[Outcome]:
        """Send each prompt at its instant, wait for all."""
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(load.run(instants[number::2], asked[number::2]))
                for number, load in enumerate((self.by_grpc, self.by_http))
            ]
        return [one for task in tasks for one in task.result()]


async def exact_rps(pool: RunningPool) -> float:
    """Exact images a second with full batches: thirty at once, by the time between the fifth and the last."""
    outcomes = await Load(pool.service_address, limit_s=120, exact=True).run([0.0] * 30, prompts(30, seed=77))
    ended = sorted(one.ended_s for one in outcomes if one.ok)
    assert len(ended) > 20, summary(outcomes, SLO_S)
    return (len(ended) - 5) / (ended[-1] - ended[4])


def quality_by_model(outcomes: Sequence[Outcome], exact: Sequence[Outcome]) -> dict[str, Document]:
    """Promised and measured, in percent of exact: of all (""), and of each model."""
    pairs = [(one, other) for one, other in zip(outcomes, exact, strict=True) if one.ok and other.ok]
    found = {}
    for name, own in {"all": None, **NAMES}.items():
        here = [pair for pair in pairs if own is None or pair[0].model == own]
        if here:
            best = fmean(score(other) for _, other in here)
            found[name] = {
                "images": len(here),
                "promised_percent": round(fmean(one.expected_percent for one, _ in here), 1),
                "measured_percent": round(100 * fmean(score(one) for one, _ in here) / best, 1),
            }
    return found


def score(outcome: Outcome) -> float:
    """By the exact scorer."""
    return score_image(to_pixels(outcome.image), outcome.prompt.scene).quality


async def test_mix_follows_a_load_step_by_a_reload(two_models: RunningPool) -> None:
    """More requests than one worker draws exactly: one of the others loads the full model, and no request is lost."""
    await asyncio.to_thread(until, "all workers are ready", lambda: ready_by_model(two_models) == AT_FIRST, 60)
    rate_rps = await exact_rps(two_models)
    step_s = min(MOST_S, max(LEAST_S, REQUESTS / (STEP * rate_rps)))
    instants = steady(CALM * rate_rps, CALM_S, seed=21)
    instants += [CALM_S + at_s for at_s in steady(STEP * rate_rps, step_s, seed=22)]
    asked = prompts(len(instants), seed=23)
    load, held, stop = BothDoors.of(two_models), HeldModels(two_models), asyncio.Event()
    before = two_models.restarts()
    async with asyncio.TaskGroup() as group:
        sending = group.create_task(load.run(instants, asked))
        following = group.create_task(held.follow(load.by_grpc, stop))
        outcomes = sorted(await sending, key=lambda one: one.at_s)
        stop.set()
        await following
    chosen = outcomes[:: max(1, len(outcomes) // JUDGED)]
    again = Load(two_models.service_address, limit_s=120, exact=True)
    exact = await again.run(
        [number / (JUDGING * rate_rps) for number in range(len(chosen))], [one.prompt for one in chosen]
    )
    moved_s, quality = held.moved_s(CALM_S), quality_by_model(chosen, exact)
    record(
        "load step, two models, moves by reload",
        "scenes",
        **summary(outcomes, SLO_S),
        restarts=two_models.restarts() - before,
        recovery_s=None,
        exact_rps_of_a_worker=round(rate_rps, 2),
        new_mix_serves_after_s=None if moved_s is None else round(moved_s - CALM_S, 1),
        worker_away_s=None if moved_s is None else held.reload_s(moved_s),
        held=[(at_s, dict(found)) for at_s, found in held.changes],
        by_model=dict(Counter(one.model or "scenes" for one in outcomes if one.ok)),
        quality=quality,
    )
    assert sum(one.lost for one in outcomes) == 0, summary(outcomes, SLO_S)
    assert all(one.ok or one.refused for one in outcomes), summary(outcomes, SLO_S)
    assert moved_s is not None, held.changes
    assert quality["all"]["measured_percent"] >= FLOOR_PERCENT, quality


async def test_each_model_answers(two_models: RunningPool) -> None:
    """By both doors: a request that demands a model gets it, and GET /v1/models lists both."""
    async with AsyncOpenAI(base_url=f"http://{two_models.http_address}/v1", api_key="none", max_retries=0) as client:
        listed = [model.id async for model in client.models.list()]
    assert {"models", *NAMES} <= set(listed), listed
    answered: dict[str, Counter[str]] = {}
    for name in NAMES:
        instants = steady(2.0, 8.0, seed=len(name))
        asked = prompts(len(instants), seed=len(name))
        by_grpc = await Load(two_models.service_address, limit_s=60, model=name).run(instants, asked)
        by_http = await HttpLoad(two_models.http_address, limit_s=60, model=name).run(instants, asked)
        assert all(one.ok for one in (*by_grpc, *by_http)), summary([*by_grpc, *by_http], SLO_S)
        answered[name] = Counter(one.model for one in (*by_grpc, *by_http))
    assert {name: list(found) for name, found in answered.items()} == {name: [own] for name, own in NAMES.items()}
