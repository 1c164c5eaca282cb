"""The learned predictor: similarity and prompt features -> expected quality loss of each level, with its margin.

Decided from the cosine to the nearest cached prompt and the new prompt's own features; read against a small additive
model that `t2ictl profile` fitted to measured prompts (arXiv 2502.06798's Optimal-K Predictor). For level j:

    loss_j(s, x)   = curve_j(s) + sum_f weight_jf * (clip(x_f) - mean_f)
    margin_j(s, x) = margin_j(s) + sum_f margin_jf * |clip(x_f) - mean_f|
    promise        = max(0, loss + z * margin)

s = similarity, x_f = a feature, clipped to the range that was measured. The curve is linear between its points, never
rises with similarity, and neither does its upper edge: more similar can only promise less loss. A schedule without a
latent has a curve of one point. What is promised is the *expected* loss of prompts like this one: one image's loss is
mostly the noise of its seed, and no predictor knows that.

It must never answer for a level it was not fitted to. Nor may it answer for a similarity below all that were measured.
Where a prompt's features are unknown it answers for the average prompt. Every answer is a sum, so it is its own
explanation.
"""

from bisect import bisect_right
from dataclasses import dataclass

from t2i_policy.features import PromptFeatures
from t2i_policy.level import Level

SIMILARITY, SCHEDULE = "similarity", "schedule"  # names of the base: what a level loses for the average prompt


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """Expected loss (fraction of exact) and its margin (one standard error, calibrated) at a similarity."""

    similarity: float
    loss: float
    margin: float


@dataclass(frozen=True, slots=True)
class Contribution:
    """What one feature adds to the expected loss, and to its margin (>= 0)."""

    feature: str
    loss: float
    margin: float


@dataclass(frozen=True, slots=True)
class Term:
    """One feature's part: `weight` loss per unit away from `mean`; values are clipped to `low`..`high`."""

    feature: str
    mean: float
    low: float
    high: float
    weight: float
    margin: float

    def contribution(self, prompt: PromptFeatures) -> Contribution:
        """What this prompt's value adds."""
        away = min(self.high, max(self.low, prompt.value(self.feature))) - self.mean
        return Contribution(self.feature, self.weight * away, self.margin * abs(away))


@dataclass(frozen=True, slots=True)
class Prediction:
    """The expected loss as a sum: the base by similarity or schedule first, then the prompt's own."""

    contributions: tuple[Contribution, ...]

    @property
    def expected_loss(self) -> float:
        """Fraction of exact; may be slightly negative, as measured losses are."""
        return sum(part.loss for part in self.contributions)

    def bound(self, z: float) -> float:
        """What may be promised: the expected loss and `z` margins, never below 0. Monotone in similarity for z <= 1."""
        return max(0.0, self.expected_loss + z * sum(part.margin for part in self.contributions))

    def sentence(self) -> str:
        """For people: `12.0% ± 1.5% = similarity 11.2% ± 1.4%, words +0.8% ± 0.1%`."""
        total = _percent(self.expected_loss, sum(part.margin for part in self.contributions))
        first, *others = self.contributions
        parts = [f"{first.feature} {_percent(first.loss, first.margin)}"]
        parts += [f"{part.feature} {_percent(part.loss, part.margin, sign='+')}" for part in others]
        return f"{total} = {', '.join(parts)}"


def _percent(loss: float, margin: float, sign: str = "") -> str:
    return f"{100 * loss:{sign}.1f}% ± {100 * margin:.1f}%"


@dataclass(frozen=True, slots=True)
class LevelPredictor:
    """One level's model. `curve` rises in similarity and falls in loss; `num_samples` prompts are behind it.

    Raises:
        ValueError: the curve is empty, out of order or rising.
    """

    level: Level
    curve: tuple[CurvePoint, ...]
    terms: tuple[Term, ...]
    num_samples: int

    def __post_init__(self) -> None:
        if not self.curve:
            raise ValueError("curve: needs at least one point")
        if any(point.margin < 0 for point in self.curve):
            raise ValueError("curve: margin must not be negative")
        for left, right in zip(self.curve, self.curve[1:], strict=False):
            if right.similarity <= left.similarity:
                raise ValueError("curve: similarity must rise from point to point")
            if right.loss > left.loss or right.loss + right.margin > left.loss + left.margin + 1e-9:
                raise ValueError("curve: loss and loss + margin must not rise with similarity")

    def predict(self, similarity: float | None, prompt: PromptFeatures | None) -> Prediction | None:
        """None without a similarity where the level needs one, or below all that were measured."""
        base = self._on_curve(similarity)
        if base is None:
            return None
        whole = Contribution(SIMILARITY if self.level.needs_latent else SCHEDULE, *base)
        if prompt is None:
            return Prediction((whole,))
        return Prediction((whole, *(term.contribution(prompt) for term in self.terms)))

    def _on_curve(self, similarity: float | None) -> tuple[float, float] | None:
        """(loss, margin) at a similarity, constant past the last point."""
        if not self.level.needs_latent:
            return self.curve[0].loss, self.curve[0].margin
        if similarity is None or similarity < self.curve[0].similarity:
            return None
        at = bisect_right([point.similarity for point in self.curve], similarity)
        left = self.curve[at - 1]
        if at == len(self.curve):
            return left.loss, left.margin
        right = self.curve[at]
        part = (similarity - left.similarity) / (right.similarity - left.similarity)
        return left.loss + part * (right.loss - left.loss), left.margin + part * (right.margin - left.margin)


@dataclass(frozen=True, slots=True)
class Predictor:
    """One model a level."""

    levels: tuple[LevelPredictor, ...]

    @property
    def lowest_similarity(self) -> float:
        """Where the curves of levels that need a latent begin; -1 without such levels."""
        return max((one.curve[0].similarity for one in self.levels if one.level.needs_latent), default=-1.0)

    def of(self, level: Level) -> LevelPredictor | None:
        """The model of a level, or None if it was not fitted."""
        return next((one for one in self.levels if one.level == level), None)
