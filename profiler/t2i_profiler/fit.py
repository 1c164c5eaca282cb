"""Training of the learned predictor from measured prompts: a small regression a level, cross-validated. Pure.

For one level, loss_i = (exact_i - level_i) / mean exact is fitted by least squares on

    1,  ramp_k(s) = clip((t_k+1 - s) / (t_k+1 - t_k), 0, 1) with weights >= 0,  chosen prompt features (standardised)

so the curve never rises with similarity; its points t are quantiles of the measured similarities. Prompts are dealt
into folds, all that share a nearest prompt into one (they share its latent, and so its luck). The fits without each
fold serve twice: for predictions on prompts that a fit never saw, and as a delete-one-group jackknife for standard
errors. A prompt feature is taken only if it lowers the squared error on unseen prompts. This gain must be more than two
of its own standard errors. Margins are the jackknife's, widened where groups of unseen prompts miss their predicted
means by more than chance.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import lsq_linear

from t2i_policy.features import FEATURES, PromptFeatures, read_prompt
from t2i_policy.level import Level
from t2i_policy.predictor import CurvePoint, LevelPredictor, Predictor, Term
from t2i_profiler.sample_file import PromptScores

Array = npt.NDArray[np.float64]
MIN_PROMPTS = 60  # below, a fit would promise nothing
FOLDS = 10
MAX_SPANS, PROMPTS_A_SPAN = 6, 40
RIDGE = 1.0  # in samples: keeps unused weights at zero, too weak to bend the others
CALIBRATION_GROUPS = 8
TAKE_FROM = 2.0  # standard errors by which a feature must help
CLIP_QUANTILES = (0.01, 0.99)


@dataclass(frozen=True, slots=True)
class SampleTable:
    """Measured prompts as columns: similarity [n], features [n, len(FEATURES)], fold [n] and losses by level [n]."""

    similarity: Array
    features: Array
    fold: npt.NDArray[np.int64]
    losses: dict[Level, Array]

    def scaled(self, chosen: Sequence[int]) -> Array:
        """The chosen features [n, len(chosen)], clipped to the measured range, mean 0 and deviation 1."""
        columns = np.clip(self.features, *np.quantile(self.features, CLIP_QUANTILES, axis=0))[:, list(chosen)]
        scaled: Array = (columns - columns.mean(0)) / columns.std(0)
        return scaled


@dataclass(frozen=True, slots=True)
class Fit:
    """Weights of one level: of all prompts [p], without each fold [FOLDS, p]; predictions for unseen prompts [n]."""

    weights: Array
    without_fold: Array
    unseen: Array

    def standard_error(self, rows: Array) -> Array:
        """Jackknife standard error of each row [m, p] times the weights, [m]."""
        values = rows @ self.without_fold.T
        spread = ((values - values.mean(1, keepdims=True)) ** 2).sum(1)
        error: Array = np.sqrt((FOLDS - 1) / FOLDS * spread)
        return error


def train_predictor(prompts: Sequence[PromptScores]) -> Predictor | None:
    """A predictor of every measured level; None with fewer than MIN_PROMPTS prompts or FOLDS nearest ones."""
    if len(prompts) < MIN_PROMPTS or len({one.nearest for one in prompts}) < FOLDS:
        return None
    table = to_table(prompts)
    return Predictor(tuple(_train_level(table, level) for level in table.losses))


def to_table(prompts: Sequence[PromptScores]) -> SampleTable:
    """Columns of the measured prompts; folds are dealt in order, by nearest prompt."""
    scored = [one.scored() for one in prompts]
    exact = np.array([one.exact for one in scored])
    groups = {nearest: at for at, nearest in enumerate(dict.fromkeys(one.nearest for one in prompts))}
    return SampleTable(
        similarity=np.array([one.similarity for one in prompts]),
        features=np.array([_values(read_prompt(one.prompt)) for one in prompts]),
        fold=np.array([groups[one.nearest] % FOLDS for one in prompts]),
        losses={
            level: (exact - np.array([one.by_level[level] for one in scored])) / max(exact.mean(), 1e-9)
            for level in prompts[0].by_level
        },
    )


def _values(features: PromptFeatures) -> list[float]:
    return [features.value(name) for name in FEATURES]


def predict_unseen(table: SampleTable, level: Level, chosen: Sequence[int] = ()) -> Array:
    """Expected losses [n] by the fits without each prompt's own fold, with these columns of `features`."""
    points = _points(table.similarity) if level.needs_latent else np.array([-1.0])
    return _fit(table, points, chosen, table.losses[level]).unseen


def _train_level(table: SampleTable, level: Level) -> LevelPredictor:
    points = _points(table.similarity) if level.needs_latent else np.array([-1.0])
    losses = table.losses[level]
    chosen = _choose_features(table, points, losses)
    fit = _fit(table, points, chosen, losses)
    widening = _widening(table, points, chosen, fit, losses) if level.needs_latent or chosen else 1.0
    return LevelPredictor(level, _curve(fit, points, widening), _terms(table, fit, chosen, widening), len(losses))


def _points(similarity: Array) -> Array:
    """Quantiles of the measured similarities, at least PROMPTS_A_SPAN prompts between two."""
    spans = max(1, min(MAX_SPANS, len(similarity) // PROMPTS_A_SPAN))
    points: Array = np.unique(np.quantile(similarity, np.linspace(0, 1, spans + 1)).round(4))
    return points


def _ramps(points: Array, similarity: Array) -> Array:
    """[m, len(points) - 1]: ramp k falls from 1 at or below point k to 0 at point k + 1."""
    left, right = points[:-1], points[1:]
    ramps: Array = np.clip((right - similarity[:, None]) / (right - left), 0, 1)
    return ramps


def _rows(points: Array, similarity: Array, scaled: Array) -> Array:
    return np.concatenate([np.ones((len(similarity), 1)), _ramps(points, similarity), scaled], axis=1)


def _fit(table: SampleTable, points: Array, chosen: Sequence[int], losses: Array) -> Fit:
    rows = _rows(points, table.similarity, table.scaled(chosen))
    num_ramps = len(points) - 1
    without = np.stack([_solve(rows[table.fold != one], losses[table.fold != one], num_ramps) for one in range(FOLDS)])
    unseen = (rows * without[table.fold]).sum(1)
    return Fit(_solve(rows, losses, num_ramps), without, unseen)


def _solve(rows: Array, losses: Array, num_ramps: int) -> Array:
    """Least squares with weights of ramps >= 0, on the Cholesky factor of the normal equations (small and fast)."""
    penalty = np.full(rows.shape[1], RIDGE)
    penalty[0] = 1e-9
    factor = np.linalg.cholesky(rows.T @ rows + np.diag(penalty))
    lowest = np.full(rows.shape[1], -np.inf)
    lowest[1 : 1 + num_ramps] = 0.0
    right = np.linalg.solve(factor, rows.T @ losses)
    weights: Array = lsq_linear(factor.T, right, bounds=(lowest, np.inf), method="bvls").x
    return weights


def _choose_features(table: SampleTable, points: Array, losses: Array) -> tuple[int, ...]:
    """Indexes into FEATURES of those that predict better on unseen prompts."""
    base = (_fit(table, points, (), losses).unseen - losses) ** 2
    taken = []
    low, high = np.quantile(table.features, CLIP_QUANTILES, axis=0)
    for at in range(len(FEATURES)):
        if high[at] > low[at]:
            gain = base - (_fit(table, points, (at,), losses).unseen - losses) ** 2
            by_fold = np.array([gain[table.fold == one].mean() for one in range(FOLDS)])
            if by_fold.mean() > TAKE_FROM * by_fold.std(ddof=1) / np.sqrt(FOLDS):
                taken.append(at)
    return tuple(taken)


def _widening(table: SampleTable, points: Array, chosen: Sequence[int], fit: Fit, losses: Array) -> float:
    """>= 1: how much larger the misses of groups of unseen prompts are than their standard errors allow for."""
    rows = _rows(points, table.similarity, table.scaled(chosen))
    misses = []
    for group in np.array_split(np.argsort(fit.unseen, kind="stable"), CALIBRATION_GROUPS):
        miss = losses[group] - fit.unseen[group]
        model = float(fit.standard_error(rows[group].mean(0, keepdims=True))[0])
        misses.append(miss.mean() / max(float(np.hypot(model, miss.std(ddof=1) / np.sqrt(len(group)))), 1e-9))
    return max(1.0, float(np.sqrt(np.mean(np.square(misses)))))


def _curve(fit: Fit, points: Array, widening: float) -> tuple[CurvePoint, ...]:
    """Loss and margin at every point; where an upper edge would rise, the edge of less similar prompts holds too.

    Fewer steps are never expected to gain: a measured gain is luck, and counts as no loss before the margin is added.
    """
    num_terms = fit.weights.size - len(points)
    rows = _rows(points, points, np.zeros((len(points), num_terms)))
    losses = np.maximum(0.0, np.minimum.accumulate(rows @ fit.weights))
    edges = np.minimum.accumulate(losses + widening * fit.standard_error(rows))
    margins = np.maximum(0.0, edges - losses)
    return tuple(CurvePoint(*map(float, point)) for point in zip(points, losses, margins, strict=True))


def _terms(table: SampleTable, fit: Fit, chosen: Sequence[int], widening: float) -> tuple[Term, ...]:
    low, high = np.quantile(table.features, CLIP_QUANTILES, axis=0)
    clipped = np.clip(table.features, low, high)
    first = fit.weights.size - len(chosen)
    errors = fit.standard_error(np.eye(fit.weights.size)) * widening
    terms = []
    for at, feature in enumerate(chosen, first):
        scale = float(clipped[:, feature].std())
        terms.append(
            Term(
                FEATURES[feature],
                float(clipped[:, feature].mean()),
                float(low[feature]),
                float(high[feature]),
                float(fit.weights[at]) / scale,
                float(errors[at]) / scale,
            )
        )
    return tuple(terms)
