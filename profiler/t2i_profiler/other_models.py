"""Another model of a pool, from two measurements of the same prompts by the same judge: its section of the profile.

The section goes into the profile of the reference. What the other model's levels lose is paired by prompt with the
reference's exact images:

    loss_i(level) = (score of the reference's exact image_i - score of the level's image_i) / mean of the former

A judge that compares images with exact ones says nothing here: two models draw different pictures of one prompt and
seed, and neither is wrong. Levels that need a latent are left out, as latents are of the reference only.
"""

from collections.abc import Iterable
from dataclasses import replace
from statistics import fmean

from t2i_policy.judge_record import other_judge
from t2i_policy.level import Level
from t2i_policy.model_section import ModelSection
from t2i_profiler.bands import MIN_SAMPLES, Scored, band_losses
from t2i_profiler.errors import SamplesInvalid
from t2i_profiler.sample_file import Measurement, PromptScores


def section_of(name: str, reference: Measurement, other: Measurement) -> ModelSection:
    """The section called `name`.

    Raises:
        SamplesInvalid: the two cannot be set against each other; says what to measure.
    """
    facts = other.facts
    judges = reference.facts.judge, facts.judge
    if differ := other_judge(judges):
        raise SamplesInvalid(
            f"--beside {name}: judged by different judges ({differ}); measure both by the same --judge"
        )
    if facts.judge.compares:
        raise SamplesInvalid(
            f"--beside {name}: {facts.judge.phrase} compares with a model's own exact images, which tells nothing "
            "between two models; measure both with a --judge that scores an image alone, such as pickscore"
        )
    if facts.device != reference.facts.device:
        raise SamplesInvalid(
            f"--beside {name}: measured on {facts.device!r}, the pool's model on {reference.facts.device!r}; a profile "
            "is of one device"
        )
    exact = {one.prompt: one for one in reference.prompts}
    scored = [_against(exact[one.prompt], one, other, name) for one in other.prompts if one.prompt in exact]
    if len(scored) < MIN_SAMPLES:
        raise SamplesInvalid(
            f"--beside {name}: {len(scored)} prompts are in both samples files, at least {MIN_SAMPLES} are needed; "
            "measure both with the same --prompts, --asked and --seed"
        )
    losses = band_losses(scored, sorted(scored[0].by_level, key=lambda level: (-level.cost, level)))
    digest, drawn = facts.model_digest, facts.measured_with
    return ModelSection(name, facts.base_steps, facts.step_s, facts.fixed_s, losses, digest, drawn)


def _against(exact: PromptScores, one: PromptScores, other: Measurement, name: str) -> Scored:
    """The other model's scores of a prompt, its full schedule among them, beside the reference's exact one."""
    full = {Level(0, other.facts.base_steps): one.exact}
    plain = full | {level: scores for level, scores in one.by_level.items() if not level.needs_latent}
    by_level = {replace(level, model=name): fmean(scores) for level, scores in plain.items()}
    wins = {replace(level, model=name): _wins(scores, exact.exact) for level, scores in plain.items()}
    return Scored(exact.similarity, fmean(exact.exact), by_level, wins=wins)


def _wins(scores: Iterable[float], exact: Iterable[float]) -> float:
    """Of all pairs of their images, as seeds of two models do not belong together."""
    against = tuple(exact)
    return fmean((mine > theirs) + (mine == theirs) / 2 for mine in scores for theirs in against)
