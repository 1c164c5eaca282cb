"""The page of `bench/predictor.py`: its JSON as tables, and what they say, said from the figures."""

from collections.abc import Mapping, Sequence
from typing import Any

from machine import machine_facts

Result = Mapping[str, Any]


def render(result: Result) -> str:
    """bench/results/predictor.md."""
    train, test, facts = result["train"], result["test"], machine_facts()
    return "\n".join(
        [
            "# Precision of the learned predictor on the embedded model",
            "",
            f"`make bench-predictor` on {facts['processor']}, {facts['cores']} cores. Fitted to {train['prompts']} "
            f"captions ({train['images']} images at every level), judged by {test['prompts']} others of another seed "
            f"({test['images']} images), against other kept prompts. Fitting takes {result['fit_s']:.1f} s. "
            "Losses are fractions of exact quality; they are scored exactly. The judged captions of the "
            "default draw (seed 303) chose no setting. Those of seed 202 did: they judged an earlier draft, which "
            "promised too little on them, and a measured gain has counted as no loss since; they are fitted to now.",
            "",
            "![promised and measured loss](predictor.png)",
            "",
            "## Promises and what became of them",
            "",
            "Each rule chooses the cheapest level that it calls harmless within the tolerance, every latent being "
            "stored. *Promised* and *measured* are means over all judged prompts (exact ones lose nothing). "
            "*Exceeded*: of the prompts that were bent, the share whose own mean loss over its seeds was above its "
            "promise; *images*: the same for single images. With nothing lost, both tend to a half: the rest is the "
            "noise of seeds. NIRVANA's thresholds promise nothing; the tolerance is held against them. *Bands, no "
            "gain* take a measured gain for no loss, as the predictor does.",
            "",
            *_precision(result["precision"]),
            "",
            "## By level",
            "",
            *_by_level(result["precision"]),
            "",
            "## Promises along the similarity",
            "",
            *_cells(result["cells"]),
            "",
            "## What each feature adds",
            "",
            "Share of the variance of losses explained on unseen prompts (cross-validated within the fitted set; one "
            "image's noise is the larger part, so 1 is out of reach). *Words shared* needs the neighbour's words, "
            "which the cache does not keep: it shows what a sketch of them could be worth. Taken by the training rule "
            f"(better by two standard errors): {_taken(result['features_taken'])}.",
            "",
            *_ablation(result["explained_share"]),
            "",
            "## Measured prompts needed",
            "",
            "Fitted to n prompts with one image each, several times to different prompts: means over these fits, and "
            "how many of them promise less than the judged captions lose by more than one standard error.",
            "",
            *_learning(result["learning"]),
            "",
            "## Reading",
            "",
            *_reading(result),
            "",
        ]
    )


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _precision(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [
        "| tolerance % | rule | promised % | measured % ± s.e. | exceeded % | images % | steps saved % |",
        "|---" * 7 + "|",
    ]
    return lines + [
        f"| {100 * row['tolerance']:.0f} | {row['rule']} | {_percent(row['promised'])} | "
        f"{_percent(row['measured'])} ± {_percent(row['standard_error'])} | {100 * row['exceeded_share']:.0f} | "
        f"{100 * row['images_exceeded_share']:.0f} | {_percent(row['steps_saved_share'])} |"
        for row in rows
        if row["level"] == "all"
    ]


def _by_level(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [
        "| tolerance % | rule | level | prompts | promised % | measured % ± s.e. | exceeded % |",
        "|---" * 7 + "|",
    ]
    return lines + [
        f"| {100 * row['tolerance']:.0f} | {row['rule']} | {row['level']} | {row['prompts']} | "
        f"{_percent(row['promised'])} | {_percent(row['measured'])} ± {_percent(row['standard_error'])} | "
        f"{100 * row['exceeded_share']:.0f} |"
        for row in rows
        if row["level"] not in ("all", "0")
    ]


def _cells(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [
        "| level | mean similarity | prompts | bands promise % | predictor promises % | measured % ± s.e. |",
        "|---" * 6 + "|",
    ]
    lines += [
        f"| {cell['level']} | {cell['similarity']:.2f} | {cell['prompts']} | {_percent(cell['bands'])} | "
        f"{_percent(cell['predictor'])} | {_percent(cell['measured'])} ± {_percent(cell['standard_error'])} |"
        for cell in cells
    ]
    told = [
        f"{name} {sum(cell['measured'] > cell[name] for cell in cells)} (by more than one s.e.: "
        f"{sum(cell['measured'] - cell['standard_error'] > cell[name] for cell in cells)})"
        for name in ("bands", "predictor")
    ]
    return [*lines, "", f"Cells of {len(cells)} measured above the promise: {', '.join(told)}."]


def _ablation(rows: Mapping[str, Mapping[str, float]]) -> list[str]:
    levels = list(next(iter(rows.values())))
    lines = ["| features | " + " | ".join(levels) + " |", "|---" * (len(levels) + 1) + "|"]
    return lines + [
        f"| {name} | " + " | ".join(f"{shares[level]:.3f}" for level in levels) + " |" for name, shares in rows.items()
    ]


def _learning(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [
        "| n | tolerance % | rule | fits | promised % | measured % | promise broken | steps saved % |",
        "|---" * 8 + "|",
    ]
    return lines + [
        f"| {row['prompts']} | {100 * row['tolerance']:.0f} | {row['rule']} | {row['parts']} | "
        f"{_percent(row['promised'])} | {_percent(row['measured'])} | {row['broken_parts']} | "
        f"{_percent(row['steps_saved_share'])} |"
        for row in rows
    ]


def _taken(taken: Mapping[str, Sequence[str]]) -> str:
    told = [f"{', '.join(features)} at level {level}" for level, features in taken.items() if features]
    return "; ".join(told) or "none"


def _reading(result: Result) -> list[str]:
    """Bands and predictor at each tolerance: who kept the promise, who saved more."""
    found = {(row["rule"], row["tolerance"]): row for row in result["precision"] if row["level"] == "all"}
    lines = []
    for tolerance in sorted({tolerance for _, tolerance in found}):
        told = []
        for rule in ("bands", "bands, no gain", "predictor"):
            row = found.get((rule, tolerance))
            if row is None:
                continue
            over = row["measured"] - row["promised"]
            kept = "kept" if over <= 0 else "within noise" if over <= row["standard_error"] else "broken"
            told.append(
                f"{rule} saves {_percent(row['steps_saved_share'])} % of steps, its promise {kept} "
                f"({100 * over:+.1f} points)"
            )
        lines.append(f"- tolerance {100 * tolerance:.0f} %: {'; '.join(told)}.")
    return lines
