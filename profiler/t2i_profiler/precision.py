"""Precision of promises: what a rule promises for prompts that its profile never saw, and what they then lose. Pure.

Three rules choose a wanted level as the gateway does, every latent stored: similarity bands alone, the learned
predictor, and NIRVANA's thresholds (which promise nothing; the tolerance is held against them). A promise is about the
mean: one image's loss is mostly the noise of its seed. So about half the images of a level that loses nothing exceed a
promise of nothing. Both are told.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from rich.table import Table

from t2i_policy.features import read_prompt
from t2i_policy.level import Ladder, Level, build_ladder
from t2i_policy.profile import JudgedLosses, LevelProfile
from t2i_policy.request.options import Limits, Neighbourhood, Option, choose_wanted_level, eligible_options
from t2i_profiler.bands import band_losses, bound_by_twins, largest_error
from t2i_profiler.errors import SamplesInvalid
from t2i_profiler.fit import train_predictor
from t2i_profiler.sample_file import Measurement, PromptScores
from t2i_simulator.rivals.nirvana import level_by_similarity

Rule = Callable[[PromptScores], Option]
TOLERANCES = (0.01, 0.02, 0.05, 0.1)  # fractions of exact quality; the first is what the gateway calls harmless
OUTER_FOLDS = 5


@dataclass(frozen=True, slots=True)
class Kept:
    """One prompt's choice by one rule, and how that went: losses (fractions of mean exact), one a seed."""

    level: Level
    promised: float
    losses: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Precision:
    """Prompts of one rule and tolerance, all or those of one level. Losses are fractions, shares are 0..1."""

    rule: str
    tolerance: float
    level: str
    prompts: int
    promised: float
    measured: float
    standard_error: float
    exceeded_share: float
    images_exceeded_share: float
    steps_saved_share: float


def profile_of(measurement: Measurement) -> LevelProfile:
    """The profile of measured prompts, with a predictor if there are enough of them."""
    facts, prompts = measurement.facts, measurement.prompts
    judged = judged_losses(measurement)
    return LevelProfile(
        facts.model_digest,
        facts.device,
        facts.base_steps,
        facts.step_s,
        facts.fixed_s,
        judged.losses,
        train_predictor(prompts),
        facts.embedder_digest,
        facts.sizes,
        facts.costs,
        judged.judge,
        measured_with=facts.measured_with,
    )


def joined_profile(by_judge: Sequence[Measurement]) -> LevelProfile:
    """The profile of one measurement, judged by several: the first decides.

    Raises:
        SamplesInvalid: these are not of the same images.
    """
    first, *others = by_judge
    for other in others:
        if _drawn(first) != _drawn(other):
            raise SamplesInvalid(
                f"samples by {first.facts.judge.phrase} and by {other.facts.judge.phrase} are of different images: "
                "losses by different judges are not mixed; fit each file to a profile of its own"
            )
    return replace(profile_of(first), others=tuple(judged_losses(other) for other in others))


def _drawn(measurement: Measurement) -> object:
    """What must be equal for two judges to have seen the same images."""
    facts = measurement.facts
    prompts = [(one.prompt, one.nearest, len(one.exact), frozenset(one.by_level)) for one in measurement.prompts]
    return (facts.model_digest, facts.device, facts.base_steps, facts.step_s, prompts)


def judged_losses(measurement: Measurement) -> JudgedLosses:
    """Losses by band, bounded by twins. A judge that compares with exact has no wins: exact always does."""
    scored = [one.scored() for one in measurement.prompts]
    bands = band_losses(scored, measurement.levels)
    bands = bound_by_twins(bands, [one.scores.scored() for one in measurement.twins])
    judge = measurement.facts.judge
    if judge.compares:
        bands = tuple(replace(band, win_rate=None) for band in bands)
    drawn = [*measurement.prompts, *(one.scores for one in measurement.twins)]
    num_images = sum(len(one.exact) * (1 + len(one.by_level)) for one in drawn)
    return JudgedLosses(judge.measured(num_images, largest_error(scored)), bands)


def judge_profile(
    profile: LevelProfile, test: Measurement, tolerances: Sequence[float] = TOLERANCES
) -> list[Precision]:
    """Rules of a profile, judged by prompts that it was not fitted to."""
    return _judge(test, tolerances, [(profile, test.prompts)])


def cross_validated(measurement: Measurement, tolerances: Sequence[float] = TOLERANCES) -> list[Precision]:
    """Rules of all but a fold, judged by that fold; prompts that share a nearest one stay together."""
    groups = {nearest: at for at, nearest in enumerate(dict.fromkeys(one.nearest for one in measurement.prompts))}
    parts = []
    for fold in range(OUTER_FOLDS):
        inside = [one for one in measurement.prompts if groups[one.nearest] % OUTER_FOLDS == fold]
        others = tuple(one for one in measurement.prompts if groups[one.nearest] % OUTER_FOLDS != fold)
        if inside and others:
            parts.append((profile_of(replace(measurement, prompts=others)), inside))
    return _judge(measurement, tolerances, parts)


def _judge(
    judged: Measurement, tolerances: Sequence[float], parts: Sequence[tuple[LevelProfile, Sequence[PromptScores]]]
) -> list[Precision]:
    base_steps = judged.facts.base_steps
    ladder = build_ladder(base_steps, (Level(0, base_steps), *judged.levels))
    mean_exact = float(np.mean([one.scored().exact for one in judged.prompts]))
    found = []
    for tolerance in tolerances:
        kept: dict[str, list[Kept]] = {}
        for profile, prompts in parts:
            for name, rule in _rules(ladder, profile, tolerance).items():
                kept.setdefault(name, []).extend(_keep(one, rule(one), mean_exact) for one in prompts)
        for name, ones in kept.items():
            found += _rows(name, tolerance, ones, ladder)
    return found


def _rules(ladder: Ladder, profile: LevelProfile, tolerance: float) -> dict[str, Rule]:
    bands = replace(profile, predictor=None)
    rules = {"bands": _by_profile(ladder, bands, tolerance)}
    if profile.predictor is not None:
        rules["predictor"] = _by_profile(ladder, profile, tolerance)
    rules["NIRVANA"] = _by_nirvana(ladder, tolerance)
    return rules


def _by_profile(ladder: Ladder, profile: LevelProfile, tolerance: float) -> Rule:
    def choose(one: PromptScores) -> Option:
        near, limits = _near(ladder, one), Limits(max_loss=tolerance)
        options = eligible_options(ladder, profile, near, limits)
        wanted = choose_wanted_level(ladder, options, near, limits, tolerance)
        return Option(wanted.level, wanted.expected_loss)

    return choose


def _by_nirvana(ladder: Ladder, tolerance: float) -> Rule:
    def choose(one: PromptScores) -> Option:
        level = level_by_similarity(ladder, one.similarity)
        return Option(level, 0.0 if level == ladder.exact else tolerance)

    return choose


def _near(ladder: Ladder, one: PromptScores) -> Neighbourhood:
    return Neighbourhood(one.similarity, frozenset(ladder.skips), read_prompt(one.prompt))


def _keep(one: PromptScores, chosen: Option, mean_exact: float) -> Kept:
    scores = one.by_level.get(chosen.level, one.exact)
    losses = tuple((exact - score) / mean_exact for exact, score in zip(one.exact, scores, strict=True))
    return Kept(chosen.level, chosen.expected_loss, losses)


def _rows(rule: str, tolerance: float, kept: Sequence[Kept], ladder: Ladder) -> list[Precision]:
    """All prompts, then those of every level that was chosen, cheapest last."""
    rows = [_row(rule, tolerance, "all", kept, ladder)]
    for level in ladder.levels:
        inside = [one for one in kept if one.level == level]
        if inside:
            rows.append(_row(rule, tolerance, level.label(ladder.base_steps), inside, ladder))
    return rows


def _row(rule: str, tolerance: float, level: str, kept: Sequence[Kept], ladder: Ladder) -> Precision:
    """Exact ones keep their promise of no loss by definition, so shares are over those that bend."""
    means = np.array([np.mean(one.losses) for one in kept])
    bent = [one for one in kept if one.level != ladder.exact]
    images = [loss > one.promised for one in bent for loss in one.losses]
    return Precision(
        rule=rule,
        tolerance=tolerance,
        level=level,
        prompts=len(kept),
        promised=float(np.mean([one.promised for one in kept])),
        measured=float(means.mean()),
        standard_error=float(means.std(ddof=1) / np.sqrt(len(kept))) if len(kept) > 1 else 0.0,
        exceeded_share=float(np.mean([np.mean(one.losses) > one.promised for one in bent])) if bent else 0.0,
        images_exceeded_share=float(np.mean(images)) if images else 0.0,
        steps_saved_share=1 - float(np.mean([one.level.cost for one in kept])) / ladder.base_steps,
    )


def precision_table(rows: Sequence[Precision], title: str) -> Table:
    """For the terminal: one line a rule, tolerance and level."""
    table = Table(title=title)
    for column in ("tolerance", "rule", "level", "prompts", "promised", "measured ± s.e.", "exceeded", "steps saved"):
        table.add_column(column, justify="left" if column == "rule" else "right")
    for row in rows:
        table.add_row(
            f"{100 * row.tolerance:.0f}%",
            row.rule,
            row.level,
            str(row.prompts),
            f"{100 * row.promised:.1f}%",
            f"{100 * row.measured:.1f}% ± {100 * row.standard_error:.1f}%",
            f"{100 * row.exceeded_share:.0f}%",
            f"{100 * row.steps_saved_share:.1f}%",
            end_section=False,
        )
    return table
