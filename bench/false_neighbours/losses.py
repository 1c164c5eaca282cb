"""What starting from near neighbours loses, by what their words say; and a learned weight beside the rule."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.false_neighbours.drawn import PARAPHRASE, SKIPS, Document
from t2i_policy.level import Level
from t2i_profiler.fit import FOLDS, SampleTable, predict_unseen

Array = NDArray[np.float64]
STEPS = 12
TOLERANCES = (0.02, 0.05, 0.1)
BAND_EDGES = (0.9, 0.95)  # of neighbours from 0.8 on: as in a profile's bands
SAYS = {True: "agree", False: "differ", None: "tell nothing"}


class GroupLoss(NamedTuple):
    """Mean losses by skip, fractions of the mean exact score, with standard errors that count captions, not pairs."""

    words: str
    pictures: str
    pairs: int
    losses: dict[int, float]
    errors: dict[int, float]


class GuardChoice(NamedTuple):
    """A way to foresee losses of pairs it was not fitted to, and what becomes of choosing the cheapest skip by it.

    `wrong`: of neighbours that are another picture, the share that was started from.
    """

    way: str
    tolerance: float
    saved: float
    loss: float
    error: float
    wrong: float


def lost(rows: Sequence[Document], skip: int) -> Array:
    exact = np.array([row["exact"] for row in rows])
    values: Array = (exact - np.array([row[f"skip {skip}"] for row in rows])) / exact.mean()
    return values


def captions_of(rows: Sequence[Document]) -> NDArray[np.int64]:
    """A number for each asked caption: its pairs share an exact image, and so its luck."""
    numbers = {name: at for at, name in enumerate(dict.fromkeys((row["block"], row["asked"]) for row in rows))}
    return np.array([numbers[row["block"], row["asked"]] for row in rows])


def error_of(values: Array, captions: NDArray[np.int64]) -> float:
    """Standard error of the mean, robust to pairs of one caption."""
    away = values - values.mean()
    return float(np.sqrt(sum(away[captions == one].sum() ** 2 for one in np.unique(captions))) / len(values))


def group_losses(rows: Sequence[Document], nearest: float) -> list[GroupLoss]:
    """By what words say, and by whether the neighbour is a paraphrase; groups of fewer than five are left out."""
    near = np.array([row["similarity"] >= nearest for row in rows])
    captions, by_skip = captions_of(rows), {skip: lost(rows, skip) for skip in SKIPS}
    found = []
    for says, words in SAYS.items():
        for pictures in ("all", "the same picture", "another picture"):
            inside = near & np.array(
                [row["agree"] is says and pictures in ("all", _picture(row["kind"])) for row in rows]
            )
            if inside.sum() >= 5:
                losses = {skip: float(values[inside].mean()) for skip, values in by_skip.items()}
                errors = {skip: error_of(values[inside], captions[inside]) for skip, values in by_skip.items()}
                found.append(GroupLoss(words, pictures, int(inside.sum()), losses, errors))
    return found


def _picture(kind: str) -> str:
    return "the same picture" if kind == PARAPHRASE else "another picture"


def choices(rows: Sequence[Document]) -> list[GuardChoice]:
    """Losses of each pair are foreseen by fits without its caption."""
    differ = np.array([float(row["agree"] is False) for row in rows])
    fold = captions_of(rows) % FOLDS
    table = SampleTable(
        np.array([row["similarity"] for row in rows]),
        differ[:, None],
        fold,
        {Level(skip, STEPS): lost(rows, skip) for skip in SKIPS},
    )
    band = np.digitize(table.similarity, BAND_EDGES).astype(float)
    ways: dict[str, Callable[[Level], Array]] = {
        "bands": lambda level: _means(table.losses[level], band, fold),
        "similarity, learned": lambda level: predict_unseen(table, level),
        "similarity and a learned weight of words": lambda level: predict_unseen(table, level, (0,)),
        "bands and the rule": lambda level: _means(table.losses[level], 2 * band + differ, fold),
    }
    another = np.array([row["kind"] != PARAPHRASE for row in rows])
    return [
        _chosen(way, tolerance, {skip: foreseen(Level(skip, STEPS)) for skip in SKIPS}, rows, another)
        for tolerance in TOLERANCES
        for way, foreseen in ways.items()
    ]


def explained(rows: Sequence[Document]) -> dict[str, dict[int, float]]:
    """Share of the variance of losses that similarity, and words beside it, foresee of unseen captions."""
    differ = np.array([float(row["agree"] is False) for row in rows])
    fold, similarity = captions_of(rows) % FOLDS, np.array([row["similarity"] for row in rows])
    by_level = {Level(skip, STEPS): lost(rows, skip) for skip in SKIPS}
    table = SampleTable(similarity, differ[:, None], fold, by_level)
    band = np.digitize(similarity, BAND_EDGES).astype(float)
    found: dict[str, dict[int, float]] = {}
    for name, group in {"bands": band, "bands and the rule": 2 * band + differ, "the rule alone": differ}.items():
        found[name] = {
            level.skipped_steps: _share(values, _means(values, group, fold)) for level, values in by_level.items()
        }
    ways: dict[str, tuple[int, ...]] = {"similarity, learned": (), "similarity and a learned weight of words": (0,)}
    for name, chosen in ways.items():
        found[name] = {
            level.skipped_steps: _share(values, predict_unseen(table, level, chosen))
            for level, values in by_level.items()
        }
    return found


def _share(values: Array, foreseen: Array) -> float:
    return float(1 - ((values - foreseen) ** 2).mean() / values.var())


def _means(losses: Array, group: Array, fold: NDArray[np.int64]) -> Array:
    """The mean of each pair's group over the other folds."""
    foreseen = np.zeros_like(losses)
    for one in np.unique(fold):
        for kind in np.unique(group):
            others = (fold != one) & (group == kind)
            foreseen[(fold == one) & (group == kind)] = losses[others].mean() if others.any() else np.inf
    return foreseen


def _chosen(
    way: str, tolerance: float, foreseen: dict[int, Array], rows: Sequence[Document], another: NDArray[np.bool_]
) -> GuardChoice:
    skips: NDArray[np.int64] = np.zeros(len(rows), np.int64)
    losses: Array = np.zeros(len(rows))
    for skip in sorted(foreseen):
        taken = foreseen[skip] <= tolerance
        skips[taken], losses[taken] = skip, lost(rows, skip)[taken]
    wrong = float((skips[another] > 0).mean()) if another.any() else 0.0
    error = error_of(losses, captions_of(rows))
    return GuardChoice(way, tolerance, float(skips.mean() / STEPS), float(losses.mean()), error, wrong)


def as_rows(found: Sequence[Any]) -> list[dict[str, Any]]:
    """For the JSON."""
    return [one._asdict() for one in found]
