"""How precise the learned predictor is: `make bench-predictor` -> build/bench/predictor.json, results/predictor.md.

Bands, predictor and NIRVANA's thresholds are fitted to (or fixed for) one set of captions and judged by another, of
another seed: other kept prompts, other asked prompts, several seeds each. Also: what each feature adds, whether bounds
hold along the similarity, and how many measured prompts it takes. Drawn prompts are kept in build/predictor and reused.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.kit.arguments import BenchParser
from bench.kit.output import write_json
from bench.kit.plots import save_plot, subplots
from bench.predictor.page import write_report
from bench.predictor.samples import load_or_draw
from t2i_policy.features import FEATURES
from t2i_policy.level import Level
from t2i_policy.profile import LevelProfile
from t2i_profiler.fit import SampleTable, predict_unseen, to_table
from t2i_profiler.precision import Precision, judge_profile, profile_of
from t2i_profiler.sample_file import Measurement, PromptScores

TRAIN, TEST = ((600, 2, 101), (400, 2, 202)), ((400, 3, 303),)  # captions, seeds each, seed of the draw
PARTS = 5  # equal parts of the judged prompts, by similarity
RULES = ("bands", "bands, no gain", "predictor", "NIRVANA")
Array = np.ndarray[Any, np.dtype[np.float64]]
TRIAL = {"train": [[20, 2, 101]], "test": [[20, 2, 303]], "kept": 20, "sizes": [10]}
PARSER = BenchParser(__doc__, "predictor", quick=TRIAL, page=True)
PARSER.add_argument("--samples", type=Path, default=Path("build/predictor"), help="drawn prompts, reused")
DRAWS: dict[str, Any] = {"type": int, "nargs": 3, "action": "append", "metavar": ("ASKED", "SEEDS", "SEED")}
PARSER.add_argument("--train", **DRAWS, help="captions to fit to; may be given several times")
PARSER.add_argument("--test", **DRAWS, help="captions to judge by; may be given several times")
PARSER.add_argument("--kept", type=int, default=300)
PARSER.add_argument("--sizes", type=int, nargs="+", default=[120, 240, 480], help="measured prompts to fit to")


@dataclass(frozen=True, slots=True)
class PromiseCell:
    """Judged prompts of one level and similarity part: promised by each rule, and measured."""

    level: str
    similarity: float
    prompts: int
    bands: float
    predictor: float
    measured: float
    standard_error: float


def together(measurements: Sequence[Measurement]) -> Measurement:
    """Several draws as one; each has kept prompts of its own."""
    return replace(measurements[0], prompts=tuple(one for part in measurements for one in part.prompts))


def words_of(text: str) -> set[str]:
    return set(text.lower().replace(",", " ").split())


def shared_words(prompts: Sequence[PromptScores]) -> Array:
    """What a sketch of the neighbour's words could tell: share of the new words that it lacks, and of its own left."""
    rows = []
    for one in prompts:
        mine, near = words_of(one.prompt), words_of(one.nearest)
        rows.append((len(mine - near) / len(mine), len(near - mine) / len(near), len(mine & near) / len(mine | near)))
    return np.array(rows)


def explained(table: SampleTable, level: Level, chosen: Sequence[int]) -> float:
    """Share of the losses' variance explained on unseen prompts (R²)."""
    losses = table.losses[level]
    unseen = predict_unseen(table, level, chosen)
    return float(1 - ((losses - unseen) ** 2).mean() / losses.var())


def ablate(train: Measurement) -> dict[str, dict[str, float]]:
    """Explained variance by level, features added one at a time; and without similarity."""
    table, base = to_table(train.prompts), train.facts.base_steps
    flat = replace(table, similarity=np.zeros_like(table.similarity))
    wide = replace(table, features=shared_words(train.prompts))
    rows: dict[str, tuple[SampleTable, tuple[int, ...]]] = {"nothing": (flat, ()), "similarity": (table, ())}
    rows |= {f"+ {name}": (table, (at,)) for at, name in enumerate(FEATURES)}
    rows |= {"+ all prompt features": (table, tuple(range(len(FEATURES)))), "+ words shared with it": (wide, (0, 1, 2))}
    return {
        name: {level.label(base): explained(with_table, level, chosen) for level in train.levels}
        for name, (with_table, chosen) in rows.items()
    }


def judge(profile: LevelProfile, test: Measurement) -> list[Precision]:
    """The three rules, and bands that count a measured gain as no loss, as the predictor does."""
    floored = replace(
        profile,
        predictor=None,
        losses=tuple(replace(band, mean_loss=max(0.0, band.mean_loss)) for band in profile.losses),
    )
    sober = [replace(row, rule="bands, no gain") for row in judge_profile(floored, test) if row.rule == "bands"]
    return sorted(judge_profile(profile, test) + sober, key=lambda row: (row.tolerance, RULES.index(row.rule)))


def told(profile: LevelProfile, level: Level, similarities: Array, z: float) -> Array:
    """Expected losses of a level with `z` margins on top; nan where the profile says nothing."""
    values = [profile.expected_loss(level, float(similarity), z) for similarity in similarities]
    return np.array([np.nan if value is None else value for value in values])


def cells(profile: LevelProfile, test: Measurement) -> list[PromiseCell]:
    """Promises and measured means along the similarity."""
    table, bands, base = to_table(test.prompts), replace(profile, predictor=None), profile.base_steps
    found = []
    for level in test.levels:
        for inside in np.array_split(np.argsort(table.similarity), PARTS):
            at = table.similarity[inside]
            losses = table.losses[level][inside]
            promised = [told(rule, level, at, 1.0) for rule in (bands, profile)]
            error = losses.std(ddof=1) / np.sqrt(len(inside))
            means = [float(np.nanmean(value)) for value in (at, *promised, losses, error)]
            found.append(PromiseCell(level.label(base), means[0], len(inside), *means[1:]))
    return found


def learning(train: Measurement, test: Measurement, sizes: Sequence[int]) -> list[dict[str, Any]]:
    """By number of measured prompts, one image each: what rules fitted to so few promise, means over disjoint parts."""
    one_image = [
        replace(one, exact=one.exact[:1], by_level={level: scores[:1] for level, scores in one.by_level.items()})
        for one in train.prompts
    ]
    rows = []
    for size in sizes:
        parts = [one_image[at : at + size] for at in range(0, len(one_image) - size + 1, size)]
        judged = [
            row
            for part in parts
            for row in judge(profile_of(replace(train, prompts=tuple(part))), test)
            if row.level == "all" and row.rule != "NIRVANA"
        ]
        for tolerance, rule in dict.fromkeys((row.tolerance, row.rule) for row in judged):
            own = [row for row in judged if (row.tolerance, row.rule) == (tolerance, rule)]
            rows.append(
                {
                    "prompts": size,
                    "parts": len(own),
                    "tolerance": tolerance,
                    "rule": rule,
                    "promised": float(np.mean([row.promised for row in own])),
                    "measured": float(np.mean([row.measured for row in own])),
                    "broken_parts": sum(row.measured > row.promised + row.standard_error for row in own),
                    "steps_saved_share": float(np.mean([row.steps_saved_share for row in own])),
                }
            )
    return rows


def plot(profile: LevelProfile, found: Sequence[PromiseCell], to: Path) -> None:
    """Promises against similarity, and what was measured on other prompts."""
    skips = [level for level in dict.fromkeys(band.level for band in profile.losses) if level.needs_latent]
    figure, axes = subplots(1, len(skips), figsize=(4.2 * len(skips), 3.8), sharey=True)
    grid = np.linspace(0.3, 1.0, 400)
    bands = replace(profile, predictor=None)
    for axis, level in zip(np.atleast_1d(axes), skips, strict=True):
        for rule, label, style, colour in ((bands, "bands", ":", "C0"), (profile, "predictor", "-", "C1")):
            for z, told_as, width in ((0.0, "expected", 1.8), (1.0, "promised", 0.8)):
                losses = 100 * told(rule, level, grid, z)
                axis.plot(grid, losses, style, linewidth=width, label=f"{label}, {told_as}", color=colour)
        own = [cell for cell in found if cell.level == level.label(profile.base_steps)]
        losses, errors = (
            100 * np.array([getattr(cell, name) for cell in own]) for name in ("measured", "standard_error")
        )
        at = [cell.similarity for cell in own]
        axis.errorbar(at, losses, errors, fmt="ko", capsize=3, label="measured on other prompts")
        axis.set_title(f"skip {level.skipped_steps} of {level.num_inference_steps} steps", fontsize=10)
        axis.set_xlabel("similarity")
        axis.grid(alpha=0.3)
    np.atleast_1d(axes)[0].set_ylabel("loss, % of exact quality")
    np.atleast_1d(axes)[0].legend(fontsize=7)
    save_plot(figure, to)


def main() -> None:
    options = PARSER.parse()
    train, test = (
        together([load_or_draw(options.samples, options.kept, *sizes) for sizes in draws])
        for draws in (options.train or TRAIN, options.test or TEST)
    )
    began = time.monotonic()
    profile = profile_of(train)
    fitted_s = time.monotonic() - began
    found = cells(profile, test)
    figures: dict[str, Any] = {
        "train": counts(train),
        "test": counts(test),
        "fit_s": fitted_s,
        "precision": [asdict(row) for row in judge(profile, test)],
        "explained_share": ablate(train),
        "cells": [asdict(cell) for cell in found],
        "learning": learning(train, test, options.sizes),
        "features_taken": {
            one.level.label(profile.base_steps): [term.feature for term in one.terms]
            for one in (profile.predictor.levels if profile.predictor else ())
        },
    }
    plot(profile, found, options.results / "predictor.png")
    write_json(options.out, figures)
    write_report(figures, options.results / "predictor.md")


def counts(measured: Measurement) -> dict[str, int]:
    """Prompts, and images at every level."""
    return {"prompts": len(measured.prompts), "images": sum(len(one.exact) for one in measured.prompts)}


if __name__ == "__main__":
    main()
