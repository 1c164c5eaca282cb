"""Plots without a window."""

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot

subplots: Any = pyplot.subplots


def save_plot(figure: Any, path: Path, dpi: int = 110) -> None:
    """Write a figure and forget it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(path, dpi=dpi)
    pyplot.close(figure)
