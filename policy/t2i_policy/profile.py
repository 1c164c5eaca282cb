"""LevelProfile: what each level was measured to cost and to lose, per similarity band.

Measured by `t2ictl profile` on one model and device, read by every decision. Its tables:

- service time: seconds of one denoising step by batch size, and the fixed part of a request (encode, decode);
- other models of the pool, by name: service time, full schedule, and losses against the exact images of the profile's
  own model, by the same judge (optional);
- service time of other image sizes, as what their steps cost in steps of the default size (optional);
- cost of levels, in guided steps, as timed alone on an idle worker (optional);
- loss D(i, j): quality lost (fraction of exact, 0 = none) by prompts of similarity band i at level j
  (arXiv 2502.06798's degradation D_Q; reference formulation with bands as prompt classes).

A person who asks for a prompt again with another seed wants another picture. So a repeated prompt loses diversity too:

    diversity loss = (spread of exact runs - spread at the level) / spread of exact runs
    spread         = mean distance between the images of one prompt drawn with different seeds

`losses` are those of one judge, `judge`; what other judges say of the same images is in `others`, for people. Losses of
different judges are never mixed: a ratio of one scale says nothing on another. Beside a mean loss, `win_rate` tells how
often the level's image beat the exact one. Both are of the same prompt and seed, and a tie is half a win.

A band with few samples says so (`num_samples`, `standard_error`): decisions use an upper bound, not the mean.
Where the profile has a learned `predictor` for a level, its promise stands in for the band's. No promise is below what
the `twins` of that similarity lost.

Audits may add `corrections` to what is promised; the measured losses stay as they are.

Words of prompt and neighbour may be known to agree or to differ (`distinguishing_words`). What differs is a twin. Where
no twins were measured, it is promised no more than the least similar prompts: an upper bound. Below a similarity of
0.8 that is left alone, as most prompts that a band was measured with differ there.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from t2i_policy.band_loss import BandLoss as BandLoss
from t2i_policy.band_loss import render_bands
from t2i_policy.corrections import NO_CORRECTIONS, Corrections
from t2i_policy.features import PromptFeatures
from t2i_policy.image_size import SizeCost
from t2i_policy.judge_record import JudgeRecord
from t2i_policy.level import Level, exact_level
from t2i_policy.measured_with import UNKNOWN, MeasuredWith
from t2i_policy.model_section import ModelSection
from t2i_policy.predictor import Predictor
from t2i_policy.predictor_section import render_predictor

TWINS_FROM = 0.8  # similarity from which most measured prompts are paraphrases, and a twin is not one of them


class ProfileError(ValueError):
    """The profile file cannot be used; the message names the field."""


class ModelUnmeasured(ProfileError):
    """It can be used, but was measured of a model that differs from the pool's in this field."""


class LevelCost(NamedTuple):
    """What a level was measured to cost, in guided steps: an unguided step may take more than half of a guided one."""

    level: Level
    cost: float


class JudgedLosses(NamedTuple):
    """What a judge says of the levels."""

    judge: JudgeRecord
    losses: tuple[BandLoss, ...]


class VariantLosses(NamedTuple):
    """What levels lose at another size of the pool (0 = the default), or with an adapter (empty = none)."""

    width: int
    height: int
    adapter: str
    losses: tuple[BandLoss, ...]


@dataclass(frozen=True, slots=True)
class LevelProfile:
    """`step_s[b - 1]` is one step at batch size b; `fixed_s` the rest of one request. Both are of the pool's default
    size, as losses are; `sizes` says what steps of other sizes cost.
    """

    model_digest: str
    device: str
    base_steps: int
    step_s: tuple[float, ...]
    fixed_s: float
    losses: tuple[BandLoss, ...]
    predictor: Predictor | None = None
    embedder_digest: str = ""
    sizes: tuple[SizeCost, ...] = ()
    costs: tuple[LevelCost, ...] = ()
    judge: JudgeRecord | None = None
    others: tuple[JudgedLosses, ...] = ()
    variants: tuple[VariantLosses, ...] = ()
    models: tuple[ModelSection, ...] = ()
    measured_with: MeasuredWith = UNKNOWN
    corrections: Corrections = NO_CORRECTIONS  # of `losses`, by audits; no part of the file
    bands: Mapping[Level, list[BandLoss]] = field(init=False, compare=False, repr=False)  # `losses`, by level

    def __post_init__(self) -> None:
        bands: dict[Level, list[BandLoss]] = {}
        for band in (*self.losses, *(band for section in self.models for band in section.losses)):
            bands.setdefault(band.level, []).append(band)
        object.__setattr__(self, "bands", bands)

    @property
    def losses_digest(self) -> str:
        """Of what corrections are added to (16 hex digits)."""
        predictor = None if self.predictor is None else render_predictor(self.predictor)
        told = json.dumps([self.base_steps, render_bands(self.losses), predictor])
        return hashlib.blake2b(told.encode(), digest_size=8).hexdigest()

    def corrected(self, corrections: Corrections) -> "LevelProfile":
        """This profile with these corrections in place of those before."""
        return self if corrections == self.corrections else replace(self, corrections=corrections)

    @property
    def judged(self) -> tuple[JudgedLosses, ...]:
        """By every judge, the one that decides first."""
        unknown = JudgeRecord("unknown judge", "", "")
        return (JudgedLosses(self.judge or unknown, self.losses), *self.others)

    def section(self, model: str) -> ModelSection:
        """What was measured of a model of the pool; the profile's own is the one without a name.

        Raises:
            ProfileError: it was not measured.
        """
        if not model:
            digest, drawn = self.model_digest, self.measured_with
            return ModelSection("", self.base_steps, self.step_s, self.fixed_s, self.losses, digest, drawn)
        found = next((section for section in self.models if section.name == model), None)
        if found is None:
            names = ", ".join(section.name for section in self.models) or "none"
            raise ProfileError(f"models: no section for {model!r}, there is {names}; add what was measured of it")
        return found

    def own_steps(self, level: Level) -> float:
        """What `level` takes of a worker, in steps of the profile's own model: at their full batches."""
        if not level.model:
            return level.cost
        other = self.section(level.model)
        return level.cost * _image_step_s(other.step_s) / max(_image_step_s(self.step_s), 1e-9)

    def cost_of(self, level: Level) -> float:
        """In guided steps, as measured; where it was not, as many as the level computes."""
        return next((one.cost for one in self.costs if one.level == level), level.cost)

    def expected_loss(
        self,
        level: Level,
        similarity: float | None,
        z: float = 1.0,
        prompt: PromptFeatures | None = None,
        words_agree: bool | None = None,
    ) -> float | None:
        """Bound on the quality loss of `level` at this similarity (None = no neighbour), or None if never measured.

        0.0 for the exact level by definition. `prompt` refines it where a predictor was trained; None = an average one.
        `words_agree`: whether its distinguishing words are those of the neighbour; None = unknown.
        """
        if level == exact_level(self.base_steps):
            return 0.0
        band = self.band(level, similarity)
        learned = None if self.predictor is None else self.predictor.of(level)
        if learned is not None:
            told = learned.predict(similarity, prompt)
            bound = None if told is None else told.bound(z)
        else:
            bound = None if band is None else band.own_bound(z)
        if bound is None or band is None:
            return bound
        unlike = self._stands_for_twins(band, similarity, words_agree)
        bound = max(bound, band.twins_bound(z, words_agree), 0.0 if unlike is None else unlike.own_bound(z))
        return self.corrections.applied(bound, level, band.similarity_min)

    def _stands_for_twins(self, band: BandLoss, similarity: float | None, words_agree: bool | None) -> BandLoss | None:
        """The level's least similar band, for a neighbour whose words differ where no twins were measured."""
        if words_agree is not False or band.twins is not None or not band.level.needs_latent:
            return None
        if similarity is None or similarity < TWINS_FROM:
            return None
        return min(self.bands[band.level], key=lambda one: one.similarity_min)

    def repeated_loss(
        self,
        level: Level,
        similarity: float | None,
        z: float = 1.0,
        prompt: PromptFeatures | None = None,
        words_agree: bool | None = None,
    ) -> float | None:
        """As `expected_loss`, for a prompt that was asked before with another seed: what diversity loses is added."""
        loss, band = self.expected_loss(level, similarity, z, prompt, words_agree), self.band(level, similarity)
        if loss is None or level == exact_level(self.base_steps):
            return loss
        return min(1.0, loss + (1.0 if band is None else band.diversity_bound(z)))

    @property
    def lacks_diversity(self) -> bool:
        """Whether a level that resumes stored runs was measured, and how different its images are was not."""
        return any(band.level.needs_latent and band.diversity_loss is None for band in self.losses)

    def diversity_lost(self, level: Level, similarity: float | None) -> float | None:
        """Mean share of the spread of exact runs that is lost; None for the exact level and where none was measured."""
        band = self.band(level, similarity)
        return None if band is None else band.diversity_loss

    def explain(
        self,
        level: Level,
        similarity: float | None,
        prompt: PromptFeatures | None = None,
        words_agree: bool | None = None,
    ) -> str:
        """Where `expected_loss` has its figure from, for people; "" for the exact level and where nothing is known."""
        band = self.band(level, similarity)
        learned = None if self.predictor is None else self.predictor.of(level)
        if learned is not None:
            told = learned.predict(similarity, prompt)
            if told is None:
                return ""
            twins = None if band is None else band.twins
            parts = [told.sentence(), *([] if twins is None else [twins.sentence(words_agree)])]
        elif band is None:
            return ""
        else:
            parts = [band.sentence(words_agree)]
        unlike = None if band is None else self._stands_for_twins(band, similarity, words_agree)
        if unlike is not None:
            parts.append(f"its words differ and no twins were measured, so it counts as unlike: {unlike.sentence()}")
        if band is not None and (added := self.corrections.of(level, band.similarity_min)):
            parts.append(f"audits add {100 * added:+.1f}%")
        return "; ".join(parts)

    def band(self, level: Level, similarity: float | None) -> BandLoss | None:
        """The measured band of this similarity; None where there is none."""
        if level.needs_latent and similarity is None:
            return None
        at = 0.0 if similarity is None else similarity
        found = (band for band in self.bands.get(level, ()) if band.similarity_min <= at < band.similarity_max)
        return next(found, None)

    def service_s(self, level: Level, batch: int) -> float:
        """Seconds one request of `level` takes inside a batch of `batch`."""
        section = self.section(level.model)
        return section.fixed_s + level.cost * step_time(section.step_s, batch)


def _image_step_s(step_s: Sequence[float]) -> float:
    """Seconds of a worker that one image's step takes in a full batch."""
    return step_s[-1] / len(step_s) if step_s else 0.0


def step_time(step_s: Sequence[float], batch: int) -> float:
    """Seconds of one step at `batch`; past the measured sizes it grows in proportion."""
    if not step_s:
        return 0.0
    size = max(1, batch)
    if size <= len(step_s):
        return step_s[size - 1]
    return step_s[-1] * size / len(step_s)
