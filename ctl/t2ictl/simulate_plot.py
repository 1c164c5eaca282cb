"""The simulation over time: offered and served, violations and quality of every policy, and the first one's mix."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
from matplotlib import pyplot as plt

from t2i_simulator.report import Floats, Timeline


def plot_timelines(timelines: Mapping[str, Timeline], title: str, to: Path) -> None:
    """Write a picture; its format is that of the file's name."""
    policies = list(timelines)
    figure, panels = plt.subplots(3 + len(policies), 1, figsize=(11, 6.5 + 1.6 * len(policies)), sharex=True)
    first = timelines[policies[0]]
    hours = np.arange(len(first.offered_per_min)) * first.interval_s / 3600
    load, violated, quality, *mixes = panels
    load.fill_between(hours, first.offered_per_min, color="lightgray", step="mid", label="offered")
    for name, course in timelines.items():
        load.plot(hours, course.served_per_min, label=name, linewidth=1)
        violated.plot(hours, course.violated_per_min, label=name, linewidth=1)
        quality.plot(hours, course.quality_percent, label=name, linewidth=1)
    load.set_ylabel("served / min")
    load.legend(fontsize=7, ncols=4)
    violated.set_ylabel("violations / min")
    quality.set_ylabel("quality, %")
    for panel, (name, course) in zip(mixes, timelines.items(), strict=True):
        _plot_mix(panel, hours, name, course)
    panels[-1].set_xlabel("hours")
    load.set_title(title, fontsize=10)
    figure.tight_layout()
    figure.savefig(to, dpi=110)
    plt.close(figure)


def _plot_mix(panel: Any, hours: Floats, name: str, course: Timeline) -> None:
    """Shares of the served levels, most steps at the bottom."""
    shades = plt.get_cmap("viridis")(np.linspace(0, 1, max(2, len(course.mix))))
    labels = [level.label(base_steps=0) for level in course.mix]
    if course.mix:
        panel.stackplot(hours, *course.mix.values(), labels=labels, colors=shades[: len(labels)])
        panel.legend(fontsize=6, ncols=1, loc="center left", bbox_to_anchor=(1.0, 0.5))
    panel.set_ylim(0, 1)
    panel.set_ylabel(f"mix:\n{name}", fontsize=8)
