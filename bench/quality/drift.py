"""Drift: captions change in mid-run so that the profile's promise is wrong. How soon is it noticed, and corrected?

The profile was measured on captions that come back in other words: a late start from their latents loses nothing. So
it goes at first. Then captions come with two facts changed, and are promised what paraphrases lose.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
import numpy as np

from bench.kit.output import say
from bench.quality.serving import TENANT, BenchPool, as_audits, send_closed, serving
from t2i_policy.audits import Audit, BandOf, summarise
from t2i_policy.band_loss import BandLoss
from t2i_policy.corrections import Correction, Corrections
from t2i_policy.kept_promise import AuditedQuality, judge_promise
from t2i_policy.level import Level
from t2i_policy.profile import LevelProfile
from t2i_profiler.images import Sample
from t2i_protos.v1 import auditor_pb2, auditor_pb2_grpc
from t2i_runtime.level_messages import to_level
from t2i_scenes import Scene, caption, edit_scene, sample_scene
from t2ictl.local_pool import LocalPool

POOL = BenchPool(
    levels="{skippedSteps: 0}, {skippedSteps: 9}",
    floor=20,
    harmless=80,  # or a corrected level would not be served any more, and nobody would see it corrected
    audits="{judge: scenes, auditPerMille: 1000, recalibrate: true}",
)
LATE = Level(9, 12)
ASK_LIMIT_S = 30.0
SETTLED_S = 2.0  # without a further audit
PART = 8  # captions between two looks at the auditor


@dataclass(frozen=True, slots=True)
class DriftLook:
    """What the auditor said at a moment after the captions changed; `audits` since then."""

    seconds: float
    audits: int
    holds: bool | None
    corrections: Corrections
    measured_percent: float
    promised_percent: float


@dataclass(frozen=True, slots=True)
class DriftFound:
    """Audits and seconds until the broken promise was noticed, and until the corrected promise of the band with most
    images was within a point of what is lost there; None: not within the run."""

    looks: Sequence[DriftLook]
    noticed: DriftLook | None
    corrected: DriftLook | None
    true_loss: float
    true_error: float
    profile_loss: float


def scenes_of(count: int, rng: np.random.Generator) -> list[Scene]:
    return [sample_scene(rng) for _ in range(count)]


def reworded(scene: Scene, seed: int) -> str:
    return caption(scene, np.random.default_rng(seed))


def of_paraphrases(profile: LevelProfile) -> LevelProfile:
    """As measured on captions that only come back in other words."""
    band = BandLoss(LATE, -1.0, 1.01, 0.0, 0.01, 100, 0.0)
    return replace(profile, losses=(band,), predictor=None, judge=None, others=(), variants=())


async def measure_drift(before: int, after: int, kept: int, measured: LevelProfile, folder: Path) -> DriftFound:
    """`kept` captions are drawn exactly first; `before` images as promised, then `after` that are not."""
    profile = of_paraphrases(measured)
    rng = np.random.default_rng(17)
    scenes = scenes_of(kept, rng)
    first = [Sample(reworded(scene, number), number, scene) for number, scene in enumerate(scenes)]
    async with serving(POOL, folder, profile) as pool:
        await send_closed(pool, first, "drift: captions that are kept", exact=True, tenant=TENANT)
        usual = [_again(scenes, number, rng) for number in range(before)]
        await send_closed(pool, usual, "drift: as promised")
        at_swap = (await settled(pool)).total_audits
        say(f"drift: {at_swap} audits before the captions change")
        samples = [_edited(scenes, number, rng) for number in range(after)]
        began_s, sent, looks = time.perf_counter(), [], []
        for start in range(0, after, PART):
            sent += await send_closed(pool, samples[start : start + PART], "drift: other captions", at_once=1)
            looks.append(_look(await settled(pool), time.perf_counter() - began_s, at_swap, profile))
        exact = await send_closed(pool, samples, "drift: exact, for comparison", exact=True)
    audits = [one for one in as_audits(sent, exact, profile) if one.band.level.needs_latent]
    bands = sorted({one.band for one in audits}, key=lambda band: -sum(one.band == band for one in audits))
    inside = [one for one in audits if bands and one.band == bands[0]]
    return judge_looks(looks, bands[0] if bands else None, inside, profile)


def judge_looks(
    looks: Sequence[DriftLook], band: BandOf | None, audits: Sequence[Audit], profile: LevelProfile
) -> DriftFound:
    """When the auditor first said so."""
    truth = summarise(audits)
    base = None if band is None else profile.expected_loss(band.level, band.similarity_min)
    profile_loss = 0.0 if base is None else base
    noticed = next((one for one in looks if one.holds is False), None)
    corrected = None
    if band is not None:
        near = (one for one in looks if abs(one.corrections.applied(profile_loss, *band) - truth.measured_loss) <= 0.01)
        corrected = next(near, None)
    return DriftFound(looks, noticed, corrected, truth.measured_loss, truth.standard_error, profile_loss)


def _again(scenes: Sequence[Scene], number: int, rng: np.random.Generator) -> Sample:
    scene = scenes[int(rng.integers(len(scenes)))]
    return Sample(caption(scene, rng), 10_000 + number, scene)


def _edited(scenes: Sequence[Scene], number: int, rng: np.random.Generator) -> Sample:
    place = int(rng.integers(len(scenes)))
    scene = edit_scene(scenes[place], rng, 2)
    return Sample(reworded(scene, place), 20_000 + number, scene)


async def settled(pool: LocalPool) -> auditor_pb2.GetAuditsResponse:
    """What the auditor says when no image waits to be audited any more: a pool that is asked without a pause has no
    idle worker for exact images."""
    told, since_s = await ask(pool), time.perf_counter()
    while time.perf_counter() - since_s < SETTLED_S:
        await asyncio.sleep(SETTLED_S / 10)
        later = await ask(pool)
        if later.total_audits != told.total_audits:
            told, since_s = later, time.perf_counter()
    return told


async def ask(pool: LocalPool) -> auditor_pb2.GetAuditsResponse:
    assert pool.auditor is not None
    async with grpc.aio.insecure_channel(pool.auditor.control_address) as channel:
        stub = auditor_pb2_grpc.AuditControlStub(channel)
        return await stub.GetAudits(auditor_pb2.GetAuditsRequest(), timeout=ASK_LIMIT_S)


def _look(told: auditor_pb2.GetAuditsResponse, seconds: float, at_swap: int, profile: LevelProfile) -> DriftLook:
    quality = AuditedQuality(told.num_audits, told.promised_quality, told.measured_quality, told.standard_error)
    found = [
        Correction(to_level(one.level), one.similarity_min, one.added_loss) for one in told.corrections.corrections
    ]
    return DriftLook(
        seconds,
        told.total_audits - at_swap,
        judge_promise(quality).holds,
        Corrections(told.corrections.revision, tuple(found), profile.losses_digest),
        100 * told.measured_quality,
        100 * told.promised_quality,
    )
