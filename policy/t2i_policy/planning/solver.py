"""HiGHS as this project uses it: one thread, one seed, silent, columns passed as arrays.

The same numbers in give the same solution out. Models are passed whole (`HighsLp`): building them expression by
expression costs more than solving them.
"""

from collections.abc import Mapping, Sequence

import highspy
import numpy as np
import numpy.typing as npt


class QuietHighs(highspy.Highs):  # type: ignore[misc]
    """HiGHS without its Python callbacks: setting those up prints a banner to stdout, whatever the options say."""

    def __init__(self) -> None:
        super(highspy.Highs, self).__init__()


def make_solver(options: Mapping[str, float | str | bool]) -> highspy.Highs:
    """A silent solver of one thread with these options, by HiGHS's names."""
    solver = QuietHighs()
    for name, value in ({"output_flag": False, "threads": 1, "random_seed": 1} | dict(options)).items():
        solver.setOptionValue(name, value)
    return solver


def set_matrix(model: highspy.HighsLp, entries: Sequence[tuple[int, int, float]]) -> None:
    """The constraint matrix from (row, column, value), each place at most once; `num_col_` must be set."""
    rows, columns, values = (np.array(part) for part in zip(*entries, strict=True))
    order = np.lexsort((rows, columns))
    model.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    starts: npt.NDArray[np.int64] = np.searchsorted(columns[order], np.arange(model.num_col_ + 1))
    model.a_matrix_.start_ = starts.astype(np.int32)
    model.a_matrix_.index_ = rows[order].astype(np.int32)
    model.a_matrix_.value_ = values[order]
