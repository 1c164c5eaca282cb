"""The page and the plot of the embedded model's quality."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from bench.kit.caption_runs import Floats
from bench.kit.machine import machine_line
from bench.kit.output import table, write_page
from bench.kit.plots import save_plot, subplots
from bench.scenes.drawn import KINDS, DrawnCaptions, Mask, values
from t2i_policy.level import Level
from t2i_scenes.measuring import MeasuredScores

PARTS = ("quality", "facts_fraction", "fine_fraction")
MARKS = {1: "**", -1: "*", 0: ""}  # of a cell, by whether resuming leads there


def write_report(drawn: DrawnCaptions, minutes: float, folder: Path) -> None:
    write_page(
        folder / "scenes-quality.md",
        Path(__file__).with_name("page.md.in"),
        minutes=minutes,
        machine=machine_line(),
        count=len(drawn.kinds),
        steps=drawn.steps,
        quality=_quality_table(drawn),
        plain=_parts_table(drawn, drawn.plain, "plain"),
        resumed=_parts_table(drawn, drawn.resumed, "resumed"),
        parts=_band_parts_table(drawn),
        spread=_spread_table(drawn),
        kinds=_kinds_table(drawn),
        reading="\n".join(_reading(drawn)),
    )
    _plot(drawn, folder / "scenes-frontier.png")


def _mean(measured: MeasuredScores, inside: Mask, name: str = "quality") -> str:
    return f"{values(measured, inside, name).mean():.3f}"


def _quality_table(drawn: DrawnCaptions) -> str:
    """Mean quality, marked by how it compares with plain sampling of the same cost."""
    lines = []
    for name, inside in drawn.bands.items():
        marks = {skip: MARKS[drawn.lead(skip, inside)] for skip in drawn.resumed}
        cells = [f"{marks[skip]}{_mean(one, inside)}{marks[skip]}" for skip, one in drawn.resumed.items()]
        lines.append([name, inside.sum(), _mean(drawn.full, inside), *cells, f"{drawn.as_is[inside].mean():.3f}"])
    heads = (f"K={skip} ({drawn.steps - skip})" for skip in drawn.resumed)
    return table(["similarity", "n", f"K=0 ({drawn.steps} steps)", *heads, "cached image as is"], lines)


def _parts_table(drawn: DrawnCaptions, by_skip: dict[int, MeasuredScores], title: str) -> str:
    """Quality, facts and fine for each number of steps run."""
    columns = [drawn.full, *by_skip.values()]
    lines = [
        [name.removesuffix("_fraction"), *(_mean(column, drawn.everybody, name) for column in columns)]
        for name in PARTS
    ]
    return table([title, f"{drawn.steps} steps", *(drawn.steps - skip for skip in by_skip)], lines)


def _band_parts_table(drawn: DrawnCaptions) -> str:
    """Facts / fine of resumed runs in each band."""
    columns = [drawn.full, *drawn.resumed.values()]
    lines = [
        [name, *(" / ".join(_mean(one, inside, part) for part in PARTS[1:]) for one in columns)]
        for name, inside in drawn.bands.items()
    ]
    return table(["similarity", "K=0", *(f"K={skip}" for skip in drawn.resumed)], lines)


def _spread_table(drawn: DrawnCaptions) -> str:
    """1.00 = as different as exact images of two seeds; 0 = the same image."""
    exact = drawn.spreads[Level(0, drawn.steps)]

    def cells(spreads: Iterable[Floats], inside: Mask) -> list[str]:
        return [f"{spread[inside].mean() / exact[inside].mean():.2f}" for spread in spreads]

    resumed = [drawn.spreads[Level(skip, drawn.steps)] for skip in drawn.resumed]
    plain = [drawn.spreads[Level(0, drawn.steps - skip)] for skip in drawn.resumed]
    lines = [[name, *cells(resumed, inside)] for name, inside in drawn.bands.items()]
    lines.append(["plain, as many steps", *cells(plain, drawn.everybody)])
    return table(["similarity", *(f"K={skip}" for skip in drawn.resumed)], lines)


def _kinds_table(drawn: DrawnCaptions) -> str:
    lines = []
    for kind in KINDS:
        inside = np.array([one == kind for one in drawn.kinds])
        columns = (drawn.full, *drawn.resumed.values())
        lines.append([kind, inside.sum(), *(_mean(column, inside) for column in columns)])
    return table(["kind", "n", "K=0", *(f"K={skip}" for skip in drawn.resumed)], lines)


def _reading(drawn: DrawnCaptions) -> list[str]:
    """Which way wins at each cost, said from the figures."""
    said = []
    for name, inside in list(drawn.bands.items())[:-1]:
        leads = {skip: drawn.lead(skip, inside) for skip in drawn.resumed}
        parts = []
        for wanted, verdict in ((1, "resuming wins"), (-1, "the short schedule wins")):
            places = [f"K={skip}" for skip, lead in leads.items() if lead == wanted]
            parts += [f"{verdict} at {', '.join(places)}"] if places else []
        said.append(
            f"- similarity {name} ({inside.sum()} captions): {'; '.join(parts) or 'no clear difference at any K'}."
        )
    return said


def _plot(drawn: DrawnCaptions, to: Path) -> None:
    """Quality against steps run: one panel a band, resumed against plain."""
    bands = drawn.bands
    columns = -(-len(bands) // 2)
    figure, axes = subplots(2, columns, figsize=(3.4 * columns, 6.4), sharey=True, squeeze=False)
    costs = [drawn.steps, *(drawn.steps - skip for skip in drawn.resumed)]
    for axis, (name, inside) in zip(axes.flat, bands.items(), strict=False):
        for side, label, style in ((drawn.resumed, "resumed at K", "o-"), (drawn.plain, "plain, fewer steps", "s--")):
            scores = [values(one, inside) for one in (drawn.full, *side.values())]
            errors = [of_one.std() / np.sqrt(len(of_one)) for of_one in scores]
            axis.errorbar(costs, [of_one.mean() for of_one in scores], errors, fmt=style, capsize=2, label=label)
        axis.axhline(drawn.as_is[inside].mean(), color="gray", linewidth=0.8, linestyle=":")
        axis.set_title(f"similarity {name} (n={inside.sum()})", fontsize=9)
        axis.set_xlabel("steps run")
        axis.grid(alpha=0.3)
    axes.flat[0].legend(fontsize=8)
    for axis in axes[:, 0]:
        axis.set_ylabel("quality")
    for axis in list(axes.flat)[len(bands) :]:
        axis.set_visible(False)
    figure.suptitle("Dotted: the cached image as it is", fontsize=9)
    save_plot(figure, to)
