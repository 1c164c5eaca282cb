"""Profiles of SDXL after the papers of our lineage: every number that is assumed, with its source.

`python -m t2i_simulator.lineage` writes `profiles/*.json`, and a test compares them with this module. The sources are
the AccuScale and Argus artifact (successor of arXiv 2502.06798), NIRVANA (arXiv 2312.04429), DiffServe
(arXiv 2411.15381) and a vendor's model card. We measured nothing here and drew no image: profile your own model with
`t2ictl profile`.

**Step times.** A10G (artifact): one image alone takes 4.2 s x (1 - K/50), so 84 ms a step and no fixed part. In its
cluster a GPU makes 1.65 times as many images, without an explanation. We take this as the gain of a batch of 4. We
assume 1.30 and 1.50 for batches of 2 and 3. A100 (DiffServe, 80 GB, 50 steps): 6.10, 10.65, 20.92, 40.23 s at batch
sizes 1, 2, 4, 8, linear between them. H100: the A100's times x 2.496/3.70 (diffusers, SDXL 30 steps 1024 x 1024,
stabilityai's TensorRT model card). The A10G was measured in another set-up, where it would be faster than an A100: do
not mix it with the other two in one pool.

**Loss of skipping.** The mean relative quality when all prompts skip K is known (artifact). So is the share h of
prompts whose similarity allows each K (its 20,000-query log). How the loss divides between prompts is unknown. Assumed:

    D(band, K) = c_K w(d),   d = (K - K_band) / 5 rungs above what the band's similarity allows (NIRVANA's table)
    w(d) = d^2.5 above, NEAR / 8^-d at and below;   c_K so that sum_band h D = 1 - mean relative quality at K, exactly

So a prompt at its own level loses under 1 % (NIRVANA's promise). D rises with K in every band and falls with similarity
at every K; the exponent is a round number with which both hold. At 1 % tolerance the bands 10, 15 and 20 may skip one
rung more than in NIRVANA's table. The reason is that the published means rise slowly.

**Loss of short schedules.** It is not published for this set-up. We assume the error of a second-order solver,
a (1/N^2 - 1/50^2), with `a` such that 20 steps lose 2 %: libraries recommend 20 to 25 steps of such solvers. This is
an optimistic guess, so compare pools with and without short schedules.

**Loss of forecasts.** It is published for FLUX.1-dev on DrawBench by ImageReward, each against its own exact run. It is
told by calls of the denoiser saved (cache-dit's hybrid cache page): DBCache with TaylorSeer loses 1.8, 2.9, 8.5 and
17.0 % at 3.2, 3.9, 5.7 and 7.4 times fewer. TaylorSeer alone lost less (0.4 % at 3.6 times), so we take the worse. It
forecasts features of blocks; ours forecasts outputs, which is weaker, and on another model. We interpolate over the
steps computed.
**Loss of guidance in part.** A fifth to a third less work is published as no loss (Step AG, arXiv 2506.08351; guidance
intervals, NeurIPS 2024). We assume 0.5 % for guidance in the first half of the schedule, beside the forecast's: on the
embedded model it lost 0.9 ± 0.4 points. An unguided step costs half a step.
Both are guesses, and optimistic ones where a model's images depend on late guidance: compare ladders with and without.

**Loss of diversity**, for prompts that are asked again. It is not published, because approximate caching is measured on
one image a prompt. We assume that it depends on the share of noise in the latent at K. How it does was measured on the
embedded model (`SPREAD_KEPT`: 64 captions, two seeds each, resumed with the noise of their own seed):

    noise share at K = sqrt(1 - a) / (sqrt(a) + sqrt(1 - a)),   a = SDXL's cumulative alpha at the timestep of K

In SDXL's schedule (scaled linear betas from 0.00085 to 0.012, 1000 training steps, leading spacing, offset 1) it is
0.60 to 0.88 for K from 25 down to 5.

**Another model**, `sdxl-turbo-a10g`: a distilled SDXL of 4 steps beside SDXL, as DiffServe pairs SDXL with
SDXL-Lightning. Its steps run without guidance, so we assume half the time of a guided one (SDXL's batch holds two rows
an image). For text and image around them we assume 0.4 s. What its images lose against SDXL's at 50 steps is published
as FID and by preference only. We assume 6 % at 4 steps, 9 % at 2 and 15 % at 1, for all prompts alike: **round
guesses**.

Losses carry no standard error; `true_loss` assumes a spread around them.
"""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from t2i_policy.level import Level
from t2i_policy.model_section import ModelSection
from t2i_policy.profile import BandLoss, LevelProfile
from t2i_policy.profile_document import render_profile
from t2i_simulator.rivals import nirvana

BASE_STEPS = 50
RUNG = 5
SKIPS = (0, 5, 10, 15, 20, 25)
RELATIVE_QUALITY = dict(zip(SKIPS, (1.0, 0.97046, 0.95808, 0.94378, 0.93235, 0.9152), strict=True))
HISTOGRAM_PERCENT = dict(zip(SKIPS, (22.5, 42.6, 21.3, 4.6, 3.2, 5.9), strict=True))  # sums to 100.1 as published
#: NIRVANA skips K from this similarity on; each band ends where the next begins.
THRESHOLDS = {0: -1.0} | {round(share * BASE_STEPS): least for least, share in reversed(nirvana.THRESHOLDS)}
TOP_SIMILARITY = 1.01  # the profile format's open end above a cosine of 1
NEAR = 0.08
POWER = 2.5

#: By the share of noise in the start latent: how much of the spread of exact runs is left.
SPREAD_KEPT = {0.0: 0.0, 0.25: 0.13, 0.5: 0.24, 0.75: 0.52, 1.0: 1.0}
BETAS = (0.00085, 0.012)
TRAINING_STEPS = 1000

STEP_ALONE_S = 4.2 / BASE_STEPS
A10G_GAINS = (1.0, 1.30, 1.50, 1.65)
A100_IMAGE_S = {1: 6.10, 2: 10.65, 4: 20.92, 8: 40.23}
H100_OVER_A100 = 2.496 / 3.70

SHORT_SCHEDULES = (40, 30, 25, 20, 15, 10)
LOSS_AT_20_STEPS = 0.02
#: Of 50 steps so many computed: what is lost. Fewer calls by 3.2, 3.9, 5.7 and 7.4 times, and none.
FORECAST_LOSSES = {50 / 7.4: 0.170, 50 / 5.7: 0.085, 50 / 3.9: 0.029, 50 / 3.2: 0.018, 50.0: 0.0}
STRIDES = (2, 3, 4, 5, 6)
GUIDED_STEPS = 25
LOSS_OF_GUIDED_HALF = 0.005
TURBO = "turbo"
TURBO_STEPS = 4
TURBO_LOSSES = {4: 0.06, 2: 0.09, 1: 0.15}
TURBO_FIXED_S = 0.4
PROFILES = Path(__file__).parent / "profiles"


class SimilarityBand(NamedTuple):
    """Prompts of this similarity may skip `skip` steps."""

    skip: int
    lower: float
    upper: float


def bands() -> tuple[SimilarityBand, ...]:
    """By rising similarity."""
    uppers = (*list(THRESHOLDS.values())[1:], TOP_SIMILARITY)
    return tuple(SimilarityBand(skip, THRESHOLDS[skip], upper) for skip, upper in zip(SKIPS, uppers, strict=True))


def shares() -> dict[int, float]:
    """h of the module: the share of prompts in each band."""
    total = sum(HISTOGRAM_PERCENT.values())
    return {skip: percent / total for skip, percent in HISTOGRAM_PERCENT.items()}


def weight(rungs: int) -> float:
    """w(d) of the module."""
    return float(rungs**POWER) if rungs > 0 else NEAR / 8.0**-rungs


def skip_loss(band_skip: int, skip: int) -> float:
    """D(band, K) of the module."""
    if skip == 0:
        return 0.0
    weights = {one: weight((skip - one) // RUNG) for one in SKIPS}
    scale = (1 - RELATIVE_QUALITY[skip]) / sum(shares()[one] * weights[one] for one in SKIPS)
    return scale * weights[band_skip]


def short_loss(steps: int) -> float:
    """Loss of a schedule of `steps` instead of 50 steps."""
    error = 1 / steps**2 - 1 / BASE_STEPS**2
    return LOSS_AT_20_STEPS * error / (1 / 20**2 - 1 / BASE_STEPS**2)


def forecast_loss(level: Level) -> float:
    """Loss of forecasts and of guidance in part."""
    computed = sum(level.computes(step, 0) for step in range(BASE_STEPS))
    loss = float(np.interp(computed, list(FORECAST_LOSSES), list(FORECAST_LOSSES.values())))
    return round(loss + (LOSS_OF_GUIDED_HALF if level.guided_steps else 0.0), 6)


def forecast_levels() -> tuple[Level, ...]:
    """With guidance in all steps, and in the first half."""
    return tuple(Level(0, BASE_STEPS, stride, guided) for guided in (0, GUIDED_STEPS) for stride in (0, *STRIDES))[1:]


def noise_share(skip: int) -> float:
    """Share of noise in the latent that enters step K."""
    roots = np.linspace(BETAS[0] ** 0.5, BETAS[1] ** 0.5, TRAINING_STEPS)
    timestep = (BASE_STEPS - 1 - skip) * (TRAINING_STEPS // BASE_STEPS) + 1
    alpha = float(np.prod(1 - roots[: timestep + 1] ** 2))
    return float((1 - alpha) ** 0.5 / (alpha**0.5 + (1 - alpha) ** 0.5))


def diversity_loss(skip: int) -> float:
    """Share of the spread that is lost by resuming at K."""
    kept = np.interp(noise_share(skip), list(SPREAD_KEPT), list(SPREAD_KEPT.values()))
    return round(1 - float(kept), 4)


def losses() -> tuple[BandLoss, ...]:
    """The loss of every level in every band. A standard error and a sample count of 0 mean that it was not measured."""
    skipping = [
        BandLoss(
            level=Level(skip, BASE_STEPS),
            similarity_min=band.lower,
            similarity_max=band.upper,
            mean_loss=skip_loss(band.skip, skip),
            standard_error=0.0,
            num_samples=0,
            diversity_loss=diversity_loss(skip),
        )
        for skip in SKIPS
        if skip
        for band in bands()
    ]
    short = [BandLoss(Level(0, steps), -1.0, TOP_SIMILARITY, short_loss(steps), 0.0, 0) for steps in SHORT_SCHEDULES]
    forecast = [BandLoss(one, -1.0, TOP_SIMILARITY, forecast_loss(one), 0.0, 0) for one in forecast_levels()]
    return (*skipping, *short, *forecast)


def _a10g_steps() -> tuple[float, ...]:
    return tuple(size * STEP_ALONE_S / gain for size, gain in enumerate(A10G_GAINS, start=1))


def _a100_steps() -> tuple[float, ...]:
    """Linear between the published batch sizes."""
    image_s = np.interp(range(1, max(A100_IMAGE_S) + 1), list(A100_IMAGE_S), list(A100_IMAGE_S.values()))
    return tuple((image_s / BASE_STEPS).tolist())


def turbo() -> ModelSection:
    """The distilled model of the module, on an A10G."""
    step_s = tuple(round(seconds / 2, 9) for seconds in _a10g_steps())
    levels = {Level(0, steps, model=TURBO): loss for steps, loss in TURBO_LOSSES.items()}
    bands_of = tuple(BandLoss(level, -1.0, TOP_SIMILARITY, loss, 0.0, 0) for level, loss in levels.items())
    return ModelSection(TURBO, TURBO_STEPS, step_s, TURBO_FIXED_S, bands_of, "assumed:turbo")


def profiles() -> dict[str, LevelProfile]:
    """The profiles by their name in `builtin://NAME`."""
    a100 = _a100_steps()
    steps: dict[str, tuple[str, Iterable[float]]] = {
        "sdxl-a10g": ("A10G, after the AccuScale artifact", _a10g_steps()),
        "sdxl-a100": ("A100-80G, after DiffServe", a100),
        "sdxl-h100": ("H100, A100 scaled by a model card", (H100_OVER_A100 * seconds for seconds in a100)),
    }
    alone = {
        name: LevelProfile(f"assumed:{name}", device, BASE_STEPS, tuple(round(s, 9) for s in step_s), 0.0, losses())
        for name, (device, step_s) in steps.items()
    }
    beside = replace(alone["sdxl-a10g"], model_digest="assumed:sdxl-turbo-a10g", models=(turbo(),))
    return alone | {"sdxl-turbo-a10g": beside}


def main() -> None:
    """Write every profile."""
    for name, profile in profiles().items():
        (PROFILES / f"{name}.json").write_text(render_profile(profile))


if __name__ == "__main__":
    main()
