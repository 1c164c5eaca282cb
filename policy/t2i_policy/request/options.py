"""The wanted level: the cheapest level judged harmless for one prompt (the paper's Optimal-K Predictor).

Decided from the similarity to the nearest cached prompt, the steps stored for it and the prompt's own features. They
are read against the measured profile (its learned `predictor` if it has one, else its similarity bands). A level is
*harmless* when the upper bound of its expected loss (mean + z standard errors, z = 1) stays within a tolerance. It must
never name a level that was not measured, whose latent is not stored, or that the request forbids.

    wanted(s) = argmin cost(j)  subject to  D(s, j) + z * se(s, j) <= tolerance
    s = similarity, j = level, D = measured quality loss (arXiv 2502.06798's degradation D_Q)

The seed is an input too. What is stored from this very prompt and seed leads to the very image that is asked for. So
resuming it loses nothing at any step. Other latents get the fresh noise of this request's seed. A prompt may have been
asked before with another seed, or be all but equal to a cached one. Then it must become another picture, and what a
level takes from diversity counts as loss.

Similarity overlooks what makes another picture of nearly the same words. The words of a prompt and its neighbour may be
known to differ. Then a skip is judged by what such twins lost. Where they agree, only twins whose words tell nothing
bound it (`bench/results/false-neighbours.md`).

The ladder is hybrid, so a prompt without a neighbour still bends: by a shorter schedule, if that was measured to be
harmless.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from t2i_policy.features import PromptFeatures
from t2i_policy.level import Ladder, Level
from t2i_policy.profile import LevelProfile
from t2i_policy.quick_dataclass import quick_dataclass

SAME_WORDS_FROM = 0.99  # similarity from which a prompt is the cached one but for a space, a stop or a word like it
HARMLESS_LOSS = 0.01  # one percent of exact quality: below what two seeds of the same prompt differ by
BOUND_Z = 1.0


class WantedReason(StrEnum):
    """Why this level is wanted."""

    EXACT_REQUESTED = "ExactRequested"  # the caller asked for exact
    SCHEDULE_REQUESTED = "ScheduleRequested"  # the caller fixed the schedule length
    MODEL_REQUESTED = "ModelRequested"  # the caller asked for another model of the pool
    NO_NEIGHBOUR = "NoNeighbour"  # nothing similar cached, no short schedule is harmless
    SHORT_SCHEDULE = "ShortSchedule"  # a shorter schedule is the cheapest harmless level
    LESS_COMPUTED = "LessComputed"  # one that forecasts steps, guides in part or solves better is
    SIMILAR_CACHED = "SimilarCached"  # resuming from a similar prompt is
    SAME_IMAGE_CACHED = "SameImageCached"  # this prompt ran with this seed: resuming draws the same image
    OTHER_MODEL = "OtherModel"  # another model of the pool is
    UNMEASURED = "Unmeasured"  # levels were not measured for images that are drawn like this
    NOTHING_HARMLESS = "NothingHarmless"  # a neighbour exists but no cheaper level is harmless for it


class IneligibleReason(StrEnum):
    """Why a request may not be served at a level; NONE if it may."""

    NONE = ""
    EXACT_REQUESTED = "ExactRequested"
    SCHEDULE_REQUESTED = "ScheduleRequested"
    MODEL_REQUESTED = "ModelRequested"
    NO_NEIGHBOUR = "NoNeighbour"
    LATENT_NOT_STORED = "LatentNotStored"
    ABOVE_REQUEST_CAP = "AboveRequestCap"
    NOT_MEASURED = "NotMeasured"
    BELOW_QUALITY_FLOOR = "BelowQualityFloor"


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request allows. `max_loss` is a fraction; `fixed_steps` pins Level(0, n).

    `measured`: the profile speaks of images that are drawn like this one. `model`: only this one of the pool's serves,
    "" being its own; None: any. `fixed_steps` without a model are the own one's. `own_alone`: what the request sets is
    about the pool's own model, so of others nobody measured it.
    """

    max_loss: float
    max_skipped_steps: int | None = None
    exact: bool = False
    fixed_steps: int | None = None
    measured: bool = True
    model: str | None = None
    own_alone: bool = False


@quick_dataclass(frozen=True, slots=True)
class Neighbourhood:
    """The nearest cached prompt: its cosine and the steps that a start from it may skip. None and empty: no neighbour.

    `prompt` holds the features of the new prompt; None = unknown, taken for an average one. `same_image`: what is
    stored is of this very prompt and seed. `repeated`: this prompt was asked before, with another seed.
    `words_agree`: whether its distinguishing words are the neighbour's; None = unknown.
    """

    similarity: float | None
    stored_steps: frozenset[int]
    prompt: PromptFeatures | None = None
    same_image: bool = False
    repeated: bool = False
    words_agree: bool | None = None

    @property
    def another_take(self) -> bool:
        """True if a picture that was drawn is asked for again with another seed: it must become another one."""
        return not self.same_image and (self.repeated or (self.similarity or 0.0) >= SAME_WORDS_FROM)


@quick_dataclass(frozen=True, slots=True)
class Option:
    """One level with the bound on what it would lose for this prompt (fraction of exact)."""

    level: Level
    expected_loss: float


@quick_dataclass(frozen=True, slots=True)
class WantedLevel:
    """The wanted level, its loss bound, and why."""

    level: Level
    expected_loss: float
    reason: WantedReason


NOWHERE = Neighbourhood(None, frozenset())


def eligible_options(ladder: Ladder, profile: LevelProfile, near: Neighbourhood, limits: Limits) -> tuple[Option, ...]:
    """Levels this request may be served at, cheapest first; never empty.

    Left out are skips whose latent is not stored or that exceed the request's cap. Also left out are levels that were
    never measured, and levels whose loss bound exceeds `limits.max_loss`. Exact is always one, unless another model is
    demanded. If all levels of that model exceed the limit, the one that loses least is the only option
    (`breaks_floor`).
    """
    if limits.fixed_steps is not None:
        return (Option(Level(0, limits.fixed_steps, model=limits.model or ""), 0.0),)
    if limits.model and not limits.measured:
        return (Option(ladder.full_schedule(limits.model), 0.0),)
    options = [] if limits.model else [Option(ladder.exact, 0.0)]
    for level in ladder.levels:
        if level == ladder.exact or refused_unmeasured(level, near, limits):
            continue
        loss = loss_for(level, profile, near)
        if loss is not None and not refused_for_loss(loss, limits):
            options.append(Option(level, loss))
    if not options:
        return (_least_loss(ladder, profile, near, limits),)
    return tuple(sorted(options, key=lambda option: (profile.own_steps(option.level), option.expected_loss)))


def _least_loss(ladder: Ladder, profile: LevelProfile, near: Neighbourhood, limits: Limits) -> Option:
    """Of the demanded model, whatever the floor says."""
    able = [level for level in ladder.levels if not refused_unmeasured(level, near, limits)]
    losses = [(loss, level) for level in able if (loss := loss_for(level, profile, near)) is not None]
    loss, level = min(losses, default=(1.0, ladder.full_schedule(limits.model or "")))
    return Option(level, loss)


def breaks_floor(option: Option | WantedLevel, limits: Limits) -> bool:
    """Whether the model that is demanded has no level that holds what the request allows to lose."""
    return bool(limits.model) and option.expected_loss > limits.max_loss


def refused_unmeasured(level: Level, near: Neighbourhood, limits: Limits) -> IneligibleReason:
    """What forbids a cheaper level before its loss is looked at: the request's limits, or a latent that is missing."""
    if limits.exact:
        return IneligibleReason.EXACT_REQUESTED
    if limits.model is not None and level.model != limits.model:
        return IneligibleReason.MODEL_REQUESTED
    if not limits.measured or (limits.own_alone and level.model):
        return IneligibleReason.NOT_MEASURED
    if not level.needs_latent:
        return IneligibleReason.NONE
    if near.similarity is None:
        return IneligibleReason.NO_NEIGHBOUR
    if level.skipped_steps not in near.stored_steps:
        return IneligibleReason.LATENT_NOT_STORED
    if limits.max_skipped_steps is not None and level.skipped_steps > limits.max_skipped_steps:
        return IneligibleReason.ABOVE_REQUEST_CAP
    return IneligibleReason.NONE


def refused_for_loss(loss: float | None, limits: Limits) -> IneligibleReason:
    """What forbids a level by its loss bound (fraction of exact; None = never measured)."""
    if loss is None:
        return IneligibleReason.NOT_MEASURED
    return IneligibleReason.BELOW_QUALITY_FLOOR if loss > limits.max_loss else IneligibleReason.NONE


def loss_for(level: Level, profile: LevelProfile, near: Neighbourhood) -> float | None:
    """Bound on what `level` loses for this prompt and seed, fraction of exact; None if it was never measured."""
    if near.same_image and level.needs_latent:
        return 0.0
    judge = profile.repeated_loss if near.another_take else profile.expected_loss
    return judge(level, near.similarity, BOUND_Z, near.prompt, near.words_agree)


def cheapest_within(options: Iterable[Option], max_loss: float) -> Option | None:
    """The cheapest option whose loss bound is within `max_loss`; ties go to the smaller loss."""
    within = [option for option in options if option.expected_loss <= max_loss]
    return min(within, key=lambda option: (option.level.cost, option.expected_loss), default=None)


def choose_wanted_level(
    ladder: Ladder, options: tuple[Option, ...], near: Neighbourhood, limits: Limits, tolerance: float = HARMLESS_LOSS
) -> WantedLevel:
    """The cheapest harmless option. `options` come from `eligible_options` and so contain one of zero loss."""
    harmless = cheapest_within(options, tolerance) or min(options, key=lambda option: option.expected_loss)
    return WantedLevel(harmless.level, harmless.expected_loss, _explain(ladder, harmless.level, near, limits))


def _explain(ladder: Ladder, level: Level, near: Neighbourhood, limits: Limits) -> WantedReason:
    if limits.fixed_steps is not None:
        return WantedReason.SCHEDULE_REQUESTED
    if limits.exact:
        return WantedReason.EXACT_REQUESTED
    if not limits.measured:
        return WantedReason.UNMEASURED
    if limits.model:
        return WantedReason.MODEL_REQUESTED
    if level.needs_latent:
        return WantedReason.SAME_IMAGE_CACHED if near.same_image else WantedReason.SIMILAR_CACHED
    if level.model:
        return WantedReason.OTHER_MODEL
    if level != ladder.exact:
        return WantedReason.LESS_COMPUTED if level.marks else WantedReason.SHORT_SCHEDULE
    return WantedReason.NO_NEIGHBOUR if near.similarity is None else WantedReason.NOTHING_HARMLESS
