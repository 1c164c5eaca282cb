"""The planner's mixed-integer program in arrays, and how it is solved in time.

`plan` says what is decided and why; here are its columns and rows:

    columns   workers n_gj (whole) | flows x_ij | shed_i
    rows      sum_j n_gj = N_g | sum_j x_ij + shed_i = demand_i | sum_i x_ij - sum_g mu_gj n_gj <= 0

First without whole numbers (a millisecond or two). If the workers come out whole, that is the plan. A pool of up to
EXACT_WORKERS is then solved exactly. In a larger one a worker is a small part of a level: the fractional optimum is
almost the answer. Proving the last bit costs seconds. So the whole numbers are sought within REACH workers of the
optimum, to ABS_GAP of mean loss (a hundredth of a percent of quality). Where much is shed, they are sought to a
thousandth of what is shed.
With more than MANY_PLACES, as in pools of several models, proving even that takes seconds. Then a count is one of the
two whole numbers around its fractional optimum. That cost up to three hundredths of a percent of quality, in the pools
of `bench/models`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import highspy
import numpy as np
import numpy.typing as npt

from t2i_policy.planning.solver import make_solver, set_matrix

EXACT_WORKERS = 32
REACH = 2
MANY_PLACES = 64
ABS_GAP = 1e-4
REL_GAP = 1e-3
WHOLE = 1e-6
#: With a few dozen rows these cost more than they find: measured, half of the time and most of its tail.
FEW_ROWS: Mapping[str, str | bool] = {"presolve": "off", "mip_heuristic_run_feasibility_jump": False}
#: With many places these take up to 80 ms more and find nothing better: each count has two values left.
FEW_CHOICES: Mapping[str, str | bool] = {
    "mip_heuristic_run_rins": False,
    "mip_heuristic_run_rens": False,
    "mip_heuristic_run_root_reduced_cost": False,
}

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ProgramColumn:
    """Where workers may stand: group, level (positions), images/s of one of them, cost of one, how many must."""

    group: int
    level: int
    rate_rps: float
    cost: float
    pinned: int | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """A prompt class that may be served at a level (positions), at a cost an image."""

    prompt_class: int
    level: int
    cost: float


@dataclass(frozen=True, slots=True)
class Program:
    """`num_workers` by group and `demands_rps` by class."""

    num_workers: Sequence[int]
    demands_rps: Sequence[float]
    places: Sequence[ProgramColumn]
    pairs: Sequence[Pair]
    shed_cost: float


@dataclass(frozen=True, slots=True)
class Solution:
    """Workers by place, images/s by pair; `in_time` = not cut off; `near` = sought near the fractional optimum only."""

    counts: tuple[int, ...]
    flows_rps: tuple[float, ...]
    in_time: bool
    near: bool


def solve(program: Program, time_limit_s: float) -> Solution | None:
    """None if no solution was found in time."""
    model = _to_model(program)
    relaxed = _run(model, {"time_limit": time_limit_s})
    if relaxed is None:
        return None
    values = relaxed[0]
    size = len(program.places)
    if np.abs(values[:size] - np.round(values[:size])).max(initial=0.0) <= WHOLE:
        return _to_solution(program, *relaxed, False)
    model.integrality_ = [highspy.HighsVarType.kInteger] * size + [highspy.HighsVarType.kContinuous] * (
        model.num_col_ - size
    )
    many = size > MANY_PLACES
    near = many or sum(program.num_workers) > EXACT_WORKERS
    gaps = {"mip_rel_gap": 0.0}
    if near:
        gaps = {"mip_rel_gap": REL_GAP, "mip_abs_gap": max(WHOLE, ABS_GAP * sum(program.demands_rps))}
        _narrow(model, values[:size], 0 if many else REACH)
    found = _run(model, {"time_limit": time_limit_s, **FEW_ROWS, **(FEW_CHOICES if many else {}), **gaps})
    return None if found is None else _to_solution(program, *found, near)


class FractionalProgram:
    """The program without whole numbers, solved again for other workers and demands, each time from the answer before.

    `program` has the most workers that a group may have. `time_limit_s` is for all its answers together.
    """

    def __init__(self, program: Program, time_limit_s: float) -> None:
        self._num_rows = len(program.num_workers) + len(program.demands_rps)
        self._flows = slice(len(program.places), len(program.places) + len(program.pairs))
        self._solver = make_solver({"time_limit": time_limit_s})
        self._solver.passModel(_to_model(program))

    def flows_rps(self, num_workers: Sequence[int], demands_rps: Sequence[float]) -> Numbers | None:
        """Images/s by pair; None if no solution was found in time."""
        bounds = np.array([*num_workers, *demands_rps], np.float64)
        self._solver.changeRowsBounds(self._num_rows, np.arange(self._num_rows, dtype=np.int32), bounds, bounds)
        self._solver.run()
        if self._solver.getModelStatus() != highspy.HighsModelStatus.kOptimal:
            return None
        return np.array(self._solver.getSolution().col_value[self._flows])


def _narrow(model: highspy.HighsLp, counts: Numbers, reach: int) -> None:
    """Workers by place within `reach` of the whole numbers around these."""
    lower, upper = np.array(model.col_lower_), np.array(model.col_upper_)
    lower[: len(counts)] = np.maximum(lower[: len(counts)], np.floor(counts + WHOLE) - reach)
    upper[: len(counts)] = np.minimum(upper[: len(counts)], np.ceil(counts - WHOLE) + reach)
    model.col_lower_, model.col_upper_ = lower, upper


def _run(model: highspy.HighsLp, options: dict[str, float | str | bool]) -> tuple[Numbers, bool] | None:
    solver = make_solver(options)
    solver.passModel(model)
    solver.run()
    if solver.getInfo().primal_solution_status != highspy.SolutionStatus.kSolutionStatusFeasible:
        return None
    return np.array(solver.getSolution().col_value), solver.getModelStatus() == highspy.HighsModelStatus.kOptimal


def _to_solution(program: Program, values: Numbers, in_time: bool, near: bool) -> Solution:
    size = len(program.places)
    flows = values[size : size + len(program.pairs)]
    return Solution(tuple(round(count) for count in values[:size].tolist()), tuple(flows.tolist()), in_time, near)


def _to_model(program: Program) -> highspy.HighsLp:
    places, pairs, classes = len(program.places), len(program.pairs), len(program.demands_rps)
    model = highspy.HighsLp()
    model.num_col_ = places + pairs + classes
    model.col_cost_ = np.array(
        [place.cost for place in program.places] + [pair.cost for pair in program.pairs] + [program.shed_cost] * classes
    )
    lower, upper = np.zeros(model.num_col_), np.full(model.num_col_, highspy.kHighsInf)
    lower[:places] = [place.pinned or 0 for place in program.places]
    upper[:places] = [
        program.num_workers[place.group] if place.pinned is None else place.pinned for place in program.places
    ]
    model.col_lower_, model.col_upper_ = lower, upper
    used = [place.level for place in program.places] + [pair.level for pair in program.pairs]
    levels = 1 + max(used, default=-1)
    equal = [*map(float, program.num_workers), *program.demands_rps]
    model.num_row_ = len(equal) + levels
    model.row_lower_ = np.array(equal + [-highspy.kHighsInf] * levels)
    model.row_upper_ = np.array(equal + [0.0] * levels)
    set_matrix(model, _entries(program, len(equal)))
    return model


def _entries(program: Program, level_row: int) -> list[tuple[int, int, float]]:
    """(row, column, value), in the order of the module."""
    groups, places, pairs = len(program.num_workers), len(program.places), len(program.pairs)
    classes = len(program.demands_rps)
    entries: list[tuple[int, int, float]] = []
    for column, place in enumerate(program.places):
        entries += [(place.group, column, 1.0), (level_row + place.level, column, -place.rate_rps)]
    for at, pair in enumerate(program.pairs):
        column = places + at
        entries += [(groups + pair.prompt_class, column, 1.0), (level_row + pair.level, column, 1.0)]
    entries += [(groups + one, places + pairs + one, 1.0) for one in range(classes)]
    return entries
