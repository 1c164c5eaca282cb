"""The ladder of a pool that names no levels: what its profile measured to pay, else the paper's.

A level stays if no cheaper one loses as little. Loss is the bound that decisions read, mean + z standard errors. Cost
is what the profile measured, else what the level computes. A skip is judged in each similarity band on its own. It is
compared with all levels that a prompt of the band may have. A level without a latent is judged against others without
one: a prompt without a neighbour has no skip to take instead.

Nothing of a pool but its model's schedule, its profile and a Fixed mix bears on it. So a floor or an SLO may change and
the ladder stays.

Other models of the pool add theirs: the frontier of each, among its own levels, as its workers run nothing else.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from t2i_policy.level import Ladder, Level, build_ladder
from t2i_policy.model_section import ModelSection
from t2i_policy.profile import BandLoss, LevelProfile
from t2i_policy.request.options import BOUND_Z

MAX_LEVELS = 32  # that a pool document holds


class LadderSource(StrEnum):
    """Where a ladder is from."""

    SPEC = "Spec"  # the pool names its levels
    PROFILE = "Profile"  # the frontier of what was measured
    DEFAULT = "Default"  # the paper's skips: nothing else was measured


@dataclass(frozen=True, slots=True)
class JudgedLevel:
    """Whether a level is on the ladder, and why, for people. `cost` in guided steps, as measured if it was."""

    level: Level
    kept: bool
    reason: str
    cost: float


@dataclass(frozen=True, slots=True)
class ChosenLadder:
    """A ladder, where it is from, and why each level is on it or is not."""

    ladder: Ladder
    source: LadderSource
    judged: tuple[JudgedLevel, ...]

    @property
    def sentence(self) -> str:
        """For people: what was chosen, and what was left out."""
        base = self.ladder.base_steps
        if self.source is LadderSource.SPEC:
            return "the pool names its levels"
        if self.source is LadderSource.DEFAULT:
            return "the profile measured no others than the paper's: skips of 0 to 50 percent of the schedule"
        kept = ", ".join(f"{one.level.label(base)} ({one.reason})" for one in self.judged if one.kept)
        left = ", ".join(f"{one.level.label(base)} ({one.reason})" for one in self.judged if not one.kept)
        return f"the profile's frontier: {kept}" + (f"; left out: {left}" if left else "")


def paper_levels(base_steps: int) -> tuple[Level, ...]:
    """The paper's: skips of 0, 10, 20, 30, 40 and 50 percent of the schedule."""
    return tuple(dict.fromkeys(Level(base_steps * tenth // 10, base_steps) for tenth in range(6)))


def choose_ladder(
    base_steps: int,
    named: Sequence[Level],
    profile: LevelProfile | None,
    pinned: Iterable[Level] = (),
    models: Iterable[str] = (),
) -> ChosenLadder:
    """`named` are the levels of the pool, if it names any; `pinned` those that a Fixed mix stands on. `models`: the
    pool's other models, each with a section in the profile. What `named` has of one is all that it may serve.

    Raises:
        ProfileError: the profile has no section for a model.
    """
    sections = [] if profile is None else [profile.section(name) for name in models]
    if profile is None or not sections:
        return _choose_own(base_steps, named, profile, pinned, MAX_LEVELS)
    of_models = {section.name: _named_of(section, named) for section in sections}
    named = [one for one in named if not one.model]
    room = MAX_LEVELS - len(named) - sum(map(len, of_models.values()))
    share = room // max(1, sum(not told for told in (named, *of_models.values())))
    own = _choose_own(base_steps, named, profile, [one for one in pinned if not one.model], share)
    judged = own.judged
    for section in sections:
        judged += of_models[section.name] or _judge_section(section, profile, share)
    full = {section.name: section.base_steps for section in sections}
    return replace(own, ladder=build_ladder(base_steps, [one.level for one in judged if one.kept], full), judged=judged)


def _named_of(section: ModelSection, named: Sequence[Level]) -> tuple[JudgedLevel, ...]:
    """What the pool names of another model, with its full schedule; nothing if it names none."""
    told = {one: "named by the pool" for one in named if one.model == section.name}
    if told:
        told.setdefault(Level(0, section.base_steps, model=section.name), "its full schedule")
    return tuple(JudgedLevel(level, True, reason, level.cost) for level, reason in told.items())


def _judge_section(section: ModelSection, profile: LevelProfile, most: int) -> tuple[JudgedLevel, ...]:
    """The frontier of another model, among its own levels. Its full schedule stays."""
    full = Level(0, section.base_steps, model=section.name)
    measured = tuple(dict.fromkeys(band.level for band in section.losses))
    judged = {level: _judge(level, measured, profile) for level in measured}
    judged[full] = JudgedLevel(full, True, "its full schedule", full.cost)
    return _bounded(sorted(judged.values(), key=lambda one: (-one.cost, one.level)), frozenset({full}), most)


def _choose_own(
    base_steps: int, named: Sequence[Level], profile: LevelProfile | None, pinned: Iterable[Level], most: int
) -> ChosenLadder:
    exact, pinned = Level(0, base_steps), frozenset(pinned)
    if named:
        return _told(LadderSource.SPEC, base_steps, dict.fromkeys(named, "named by the pool"))
    paper = {exact, *paper_levels(base_steps)}
    measured = () if profile is None else tuple(dict.fromkeys(band.level for band in profile.losses))
    if profile is None or {*measured} <= paper:
        return _told(LadderSource.DEFAULT, base_steps, dict.fromkeys(paper | pinned, "the paper's"))
    judged = {level: _judge(level, measured, profile) for level in measured if _fits(level, base_steps)}
    judged |= {level: JudgedLevel(level, True, "the mix names it", profile.cost_of(level)) for level in pinned}
    judged[exact] = JudgedLevel(exact, True, "exact", base_steps)
    ordered = _bounded(sorted(judged.values(), key=lambda one: (-one.cost, one.level)), pinned | {exact}, most)
    ladder = build_ladder(base_steps, [one.level for one in ordered if one.kept])
    return ChosenLadder(ladder, LadderSource.PROFILE, ordered)


def _told(source: LadderSource, base_steps: int, reasons: dict[Level, str]) -> ChosenLadder:
    ladder = build_ladder(base_steps, reasons)
    judged = tuple(JudgedLevel(level, True, reasons[level], level.cost) for level in ladder.levels)
    return ChosenLadder(ladder, source, judged)


def _fits(level: Level, base_steps: int) -> bool:
    """A skip belongs to the full schedule."""
    steps = level.num_inference_steps
    return steps == base_steps if level.needs_latent else steps <= base_steps


def _judge(level: Level, measured: Sequence[Level], profile: LevelProfile) -> JudgedLevel:
    cost = profile.cost_of(level)
    bands = profile.bands[level]
    better = {band.similarity_min: _better(band, measured, profile) for band in bands}
    paying = [band for band in bands if better[band.similarity_min] is None]
    if not paying:
        return JudgedLevel(level, False, _why_left_out(better.values(), profile), cost)
    if not level.needs_latent:
        return JudgedLevel(level, True, f"loses {_percent(paying[0])}, and no cheaper one loses less", cost)
    return JudgedLevel(level, True, f"no cheaper one loses less at similarities {_ranges(paying)}", cost)


def _better(band: BandLoss, measured: Sequence[Level], profile: LevelProfile) -> Level | None:
    """A level that costs no more and loses no more for prompts of this band; None: it is on the frontier."""
    middle = (band.similarity_min + band.similarity_max) / 2 if band.level.needs_latent else None
    losses = {level: profile.expected_loss(level, middle, BOUND_Z) for level in measured}
    own, cost = losses[band.level], profile.cost_of(band.level)
    for other, loss in losses.items():
        if other == band.level or loss is None or own is None or loss > own or profile.cost_of(other) > cost:
            continue
        # of two that are equal in both, the first of the order of levels stays
        if (loss, profile.cost_of(other)) != (own, cost) or other < band.level:
            return other
    return None


def _ranges(bands: Sequence[BandLoss]) -> str:
    """In words; bands that touch are one."""
    joined: list[tuple[float, float]] = []
    for low, high in sorted((band.similarity_min, min(1.0, band.similarity_max)) for band in bands):
        touches = bool(joined) and joined[-1][1] >= low
        joined = [*joined[:-1], (joined[-1][0], high)] if touches else [*joined, (low, high)]
    return ", ".join(f"{low:.2f} to {high:.2f}" for low, high in joined)


def _why_left_out(better: Iterable[Level | None], profile: LevelProfile) -> str:
    names = dict.fromkeys(level.label(profile.base_steps) for level in better if level is not None)
    return f"{' or '.join(names)} costs and loses no more"


def _percent(band: BandLoss) -> str:
    return f"{100 * band.loss_bound(BOUND_Z):.1f}% at most"


def _bounded(ordered: Sequence[JudgedLevel], always: frozenset[Level], most: int) -> tuple[JudgedLevel, ...]:
    """No more than `most`: of others than `always`, as many at even distances."""
    others = [one for one in ordered if one.kept and one.level not in always]
    room = max(0, most - len(always))
    if len(others) <= room:
        return tuple(ordered)
    stays = {others[number * (len(others) - 1) // max(1, room - 1)].level for number in range(room)} | always
    told = f"a pool holds {MAX_LEVELS} levels"
    over = {one.level for one in others} - stays
    return tuple(replace(one, kept=False, reason=told) if one.level in over else one for one in ordered)
