"""The page of the predictor's precision, from its JSON: tables, and what they say, said from the figures."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.kit.machine import machine_line
from bench.kit.output import rows_table, table, write_page

JsonRow = Mapping[str, Any]
MEASURED = "{measured_percent:.1f} ± {standard_error_percent:.1f}"
RULE = {"tolerance %": "{tolerance_percent:.0f}", "rule": "{rule}"}
PRECISION = {
    **RULE,
    "promised %": "{promised_percent:.1f}",
    "measured % ± s.e.": MEASURED,
    "exceeded %": "{exceeded_share_percent:.0f}",
    "images %": "{images_exceeded_share_percent:.0f}",
    "steps saved %": "{steps_saved_share_percent:.1f}",
}
BY_LEVEL = {
    **RULE,
    "level": "{level}",
    "prompts": "{prompts}",
    "promised %": "{promised_percent:.1f}",
    "measured % ± s.e.": MEASURED,
    "exceeded %": "{exceeded_share_percent:.0f}",
}
CELLS = {
    "level": "{level}",
    "mean similarity": "{similarity:.2f}",
    "prompts": "{prompts}",
    "bands promise %": "{bands_percent:.1f}",
    "predictor promises %": "{predictor_percent:.1f}",
    "measured % ± s.e.": MEASURED,
}
LEARNING = {
    "n": "{prompts}",
    **RULE,
    "fits": "{parts}",
    "promised %": "{promised_percent:.1f}",
    "measured %": "{measured_percent:.1f}",
    "promise broken": "{broken_parts}",
    "steps saved %": "{steps_saved_share_percent:.1f}",
}


def write_report(figures: JsonRow, page: Path) -> None:
    precision, cells = figures["precision"], figures["cells"]
    overall = [row for row in precision if row["level"] == "all"]
    write_page(
        page,
        Path(__file__).with_name("page.md.in"),
        machine=machine_line(),
        train=figures["train"],
        test=figures["test"],
        fit_s=figures["fit_s"],
        precision=_table(PRECISION, overall),
        by_level=_table(BY_LEVEL, [row for row in precision if row["level"] not in ("all", "0")]),
        cells=_table(CELLS, cells),
        num_cells=len(cells),
        above=", ".join(_above(cells, rule) for rule in ("bands", "predictor")),
        taken=_taken(figures["features_taken"]),
        explained=_explained(figures["explained_share"]),
        learning=_table(LEARNING, figures["learning"]),
        reading="\n".join(_reading(overall)),
    )


def _table(columns: Mapping[str, str], rows: Iterable[JsonRow]) -> str:
    """Every number may also be had in percent."""
    shown = ({**row, **{f"{k}_percent": 100 * v for k, v in row.items() if isinstance(v, float)}} for row in rows)
    return rows_table(columns, shown)


def _above(cells: Sequence[JsonRow], rule: str) -> str:
    above = sum(cell["measured"] > cell[rule] for cell in cells)
    clearly = sum(cell["measured"] - cell["standard_error"] > cell[rule] for cell in cells)
    return f"{rule} {above} (by more than one s.e.: {clearly})"


def _explained(rows: Mapping[str, Mapping[str, float]]) -> str:
    levels = list(next(iter(rows.values())))
    return table(["features", *levels], ([name, *(f"{row[one]:.3f}" for one in levels)] for name, row in rows.items()))


def _taken(taken: Mapping[str, Sequence[str]]) -> str:
    told = [f"{', '.join(features)} at level {level}" for level, features in taken.items() if features]
    return "; ".join(told) or "none"


def _reading(rows: Sequence[JsonRow]) -> list[str]:
    """Bands and predictor at each tolerance: who kept the promise, who saved more."""
    found = {(row["tolerance"], row["rule"]): row for row in rows}
    lines = []
    for tolerance in sorted({row["tolerance"] for row in rows}):
        told = [
            f"{rule} saves {100 * row['steps_saved_share']:.1f} % of steps, its promise {_kept(row)}"
            for rule in ("bands", "bands, no gain", "predictor")
            if (row := found.get((tolerance, rule))) is not None
        ]
        lines.append(f"- tolerance {100 * tolerance:.0f} %: {'; '.join(told)}.")
    return lines


def _kept(row: JsonRow) -> str:
    over = row["measured"] - row["promised"]
    kept = "kept" if over <= 0 else "within noise" if over <= row["standard_error"] else "broken"
    return f"{kept} ({100 * over:+.1f} points)"
