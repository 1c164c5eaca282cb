"""A real local pool of the embedded model, and load on it: captions in an open loop, their exact images afterwards."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.kit.output import progress
from t2i_policy.audits import Audit, band_of
from t2i_policy.band_loss import BandLoss
from t2i_policy.level import Level
from t2i_policy.profile import LevelProfile
from t2i_policy.profile_document import render_profile
from t2i_policy.request.options import BOUND_Z
from t2i_profiler.images import Sample
from t2i_profiler.judges.scenes import scene_quality
from t2i_protos.v1 import gateway_pb2
from t2i_runtime.level_messages import to_level
from t2ictl.client import GatewayClient, Generated, connect
from t2ictl.credentials import Proof
from t2ictl.errors import CallFailed
from t2ictl.local_pool import LocalOptions, LocalPool

LIMIT_S = 60.0
TENANT = "bench"
POOL = """
apiVersion: t2iserving.dev/v1alpha1
kind: T2IServingPool
metadata: {{name: bench}}
spec:
  model: {{source: "builtin://scenes", numInferenceSteps: 12, guidanceScalePercent: 200, width: 48, height: 48,
          precision: fp32}}
  levels: [{levels}]
  workerGroups: [{groups}]
  slo: {{latencyMilliseconds: 1500, minQualityPercent: {floor}, harmlessLossPercent: {harmless}}}
  cache: {{scope: Tenant, capacityMebibytes: 256}}
  gateway: {{replicas: 1, maxQueuedRequests: 256}}
"""
LEVELS = (
    "{skippedSteps: 0}, {skippedSteps: 3}, {skippedSteps: 6}, {skippedSteps: 9}, {forecast: 2, guidedSteps: 4}, "
    "{numInferenceSteps: 6}, {numInferenceSteps: 4}"
)
ANOTHER_SEED = "another seed"  # of a decision whose promise counts what diversity loses
_SIMILARITY = re.compile(r"has similarity (\d\.\d+)")


@dataclass(frozen=True, slots=True)
class BenchPool:
    """What to start. `audits`: the lines of spec.quality, empty for none. `groups`: of spec.workerGroups."""

    levels: str = LEVELS
    floor: int = 60
    harmless: int = 1
    audits: str = ""
    groups: str = "{name: cpu, workers: 2}"


@asynccontextmanager
async def serving(pool: BenchPool, folder: Path, profile: LevelProfile | None = None) -> AsyncIterator[LocalPool]:
    """Yield it ready. `folder` takes its files, latents and logs. `profile` None: the model's own."""
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    text = POOL.format(levels=pool.levels, floor=pool.floor, harmless=pool.harmless, groups=pool.groups)
    audits = f"  quality: {pool.audits}\n" if pool.audits else ""
    (folder / "pool.yaml").write_text(text + audits)
    path = None
    if profile is not None:
        path = folder / "profile.json"
        path.write_text(render_profile(profile))
    options = LocalOptions(folder / "pool.yaml", "127.0.0.1:0", folder, path, threads=1)
    async with LocalPool(options) as started:
        await started.auditor_ready()
        yield started


@dataclass(frozen=True, slots=True)
class SentCaption:
    """One request; `generated` None: it was refused or failed, the latter if it was `accepted` before."""

    sample: Sample
    generated: Generated | None
    took_s: float
    accepted: bool = True

    @property
    def lost(self) -> bool:
        return self.accepted and self.generated is None

    def is_late(self, slo_s: float) -> bool:
        return self.generated is None or self.took_s > slo_s

    @property
    def quality(self) -> float:
        return 0.0 if self.generated is None else scene_quality(self.generated.data, self.sample)

    def promised_loss(self, band: BandLoss | None) -> float:
        """Of quality alone, as audits hold it against: where the prompt was asked before, the decision counts what
        diversity loses too."""
        assert self.generated is not None
        decision = self.generated.accepted.decision
        promised = 1 - decision.expected_quality_percent / 100
        counts_diversity = band is not None and ANOTHER_SEED in decision.message
        return max(0.0, promised - band.diversity_bound(BOUND_Z)) if band is not None and counts_diversity else promised

    @property
    def similarity(self) -> float | None:
        """Of the nearest cached prompt, as the decision says in words."""
        assert self.generated is not None
        found = _SIMILARITY.search(self.generated.accepted.decision.message)
        return None if found is None else float(found[1])


async def send(client: GatewayClient, sample: Sample, exact: bool = False, model: str = "") -> SentCaption:
    """`model`: the one that it demands."""
    request = gateway_pb2.GenerateRequest(prompt=sample.prompt, seed=sample.seed, exact=exact, model=model)
    began_s, accepted = time.perf_counter(), False

    def hear(event: gateway_pb2.GenerateEvent) -> None:
        nonlocal accepted
        accepted |= event.HasField("accepted")

    try:
        generated = await client.generate(request, LIMIT_S, hear)
    except CallFailed:
        return SentCaption(sample, None, time.perf_counter() - began_s, accepted)
    return SentCaption(sample, generated, time.perf_counter() - began_s)


async def send_open(pool: LocalPool, samples: Sequence[Sample], rps: float, title: str) -> list[SentCaption]:
    """At Poisson arrivals, whatever becomes of the earlier ones."""
    rng = np.random.default_rng(len(samples))
    due_s = np.cumsum(rng.exponential(1 / rps, len(samples)))
    began_s, done = time.perf_counter(), 0

    async def one(client: GatewayClient, sample: Sample, at_s: float) -> SentCaption:
        nonlocal done
        await asyncio.sleep(max(0.0, at_s - (time.perf_counter() - began_s)))
        sent = await send(client, sample)
        done += 1
        progress(title, done, len(samples))
        return sent

    async with connect(pool.address, Proof(TENANT)) as client:
        return list(await asyncio.gather(*(one(client, *both) for both in zip(samples, due_s, strict=True))))


async def send_closed(
    pool: LocalPool,
    samples: Iterable[Sample],
    title: str,
    *,
    exact: bool = False,
    model: str = "",
    tenant: str = "",
    at_once: int = 8,
) -> list[SentCaption]:
    """So many at a time. Exact images for comparison are another tenant's: they leave no latents to the load."""
    given = list(samples)
    slots, done = asyncio.Semaphore(at_once), 0

    async def one(client: GatewayClient, sample: Sample) -> SentCaption:
        nonlocal done
        async with slots:
            sent = await send(client, sample, exact, model)
        done += 1
        progress(title, done, len(given))
        return sent

    async with connect(pool.address, Proof(tenant or ("exact" if exact else TENANT))) as client:
        return list(await asyncio.gather(*(one(client, sample) for sample in given)))


async def exact_rps(pool: LocalPool, samples: Sequence[Sample]) -> float:
    """Exact images a second that this machine draws."""
    began_s = time.perf_counter()
    await send_closed(pool, samples, "capacity, exact images", exact=True)
    return len(samples) / (time.perf_counter() - began_s)


def as_audits(sent: Sequence[SentCaption], exact: Sequence[SentCaption], profile: LevelProfile) -> list[Audit]:
    """Each approximated image beside its exact one; as with audits, without those that ran at another level than
    decided, for which nothing was promised."""
    found = []
    for one, other in zip(sent, exact, strict=True):
        if one.generated is None or other.generated is None:
            continue
        level = to_level(one.generated.done.served)
        if level == Level(0, profile.base_steps) or level != to_level(one.generated.accepted.decision.served):
            continue
        promised = one.promised_loss(profile.band(level, one.similarity))
        found.append(Audit(band_of(profile, level, one.similarity), one.quality, other.quality, promised, promised))
    return found
