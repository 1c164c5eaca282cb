"""Clearing prices: what a denoising step is worth in each window of a known future, if quality is spent best.

The oracle is told these prices beforehand. They follow from every request's arrival time, the true loss of each level
that it may have, the pool's steps a second, and the slack (how long work may wait: SLO - time of an exact image):

    minimise   sum_w sum_s slope_s y_ws + SHED_PRICE sum_w shed_w
    subject to backlog_w >= backlog_w-1 + best_w - sum_s y_ws - shed_w - steps_per_s x window_s
               0 <= backlog_w <= steps_per_s x slack_s,   0 <= y_ws <= size_ws

best_w is the number of steps if every request has its least loss. The lower convex hull of a request's (steps, loss)
gives segments: each saves `size` steps at a loss of `slope` a step. One linear program (HiGHS) covers the whole future,
and the dual value of a window's row is its price. A request then takes argmin loss + price x steps. Of segments exactly
at the price only the share `cheaper_share` is saved.
The program's loss per request is a bound that no policy can beat on these requests, except for what happens within one
window: here workers are a fluid and batches always full.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import highspy
import numpy as np

from t2i_policy.planning.solver import make_solver, set_matrix

#: (denoising steps, true loss) of every level that a request may have; never empty.
Choices = tuple[tuple[int, float], ...]
SHED_PRICE = 10.0  # loss a step, above any slope: work is dropped only when no more quality can be spent
NEAR = 1e-6  # a dual value this close to a slope is that slope


class Segment(NamedTuple):
    """Saves `size` steps at a loss of `slope` a step."""

    slope: float
    size: float


class StepPrice(NamedTuple):
    """In loss a step; `cheaper_share` is the share of requests that save the segment exactly at the price."""

    price: float
    cheaper_share: float


@dataclass(frozen=True, slots=True)
class TracedRequest:
    at_s: float
    choices: Choices


@dataclass(frozen=True, slots=True)
class OracleKnowledge:
    """A `StepPrice` for each window of `window_s` from `start_s` on.

    `mean_loss` is the program's loss per request, `shed_fraction` the share of least-loss work that it had to drop.
    """

    start_s: float
    window_s: float
    prices: tuple[float, ...]
    cheaper_shares: tuple[float, ...]
    mean_loss: float
    shed_fraction: float

    def at(self, now_s: float) -> StepPrice:
        """Before the first window and after the last one a step is free."""
        window = int((now_s - self.start_s) // self.window_s)
        if not 0 <= window < len(self.prices):
            return StepPrice(0.0, 0.0)
        return StepPrice(self.prices[window], self.cheaper_shares[window])


def clear(asked: Sequence[TracedRequest], steps_per_s: float, slack_s: float, window_s: float) -> OracleKnowledge:
    """Compute the prices for requests in any order.

    Raises:
        ValueError: the pool makes no steps, a window has no length, or the slack is negative.
    """
    if steps_per_s <= 0 or window_s <= 0 or slack_s < 0:
        raise ValueError(f"need steps_per_s and window_s > 0, slack_s >= 0; got {steps_per_s}, {window_s}, {slack_s}")
    if not asked:
        return OracleKnowledge(0.0, window_s, (), (), 0.0, 0.0)
    start_s = min(one.at_s for one in asked)
    counts = _by_window(asked, start_s, window_s)
    best = [sum(n * _best(choices)[0] for choices, n in count.items()) for count in counts]
    least_loss = sum(n * _best(choices)[1] for count in counts for choices, n in count.items())
    segments = [_segments(count) for count in counts]
    solved = _solve(best, segments, steps_per_s * window_s, steps_per_s * slack_s)
    return OracleKnowledge(
        start_s=start_s,
        window_s=window_s,
        prices=tuple(solved.prices),
        cheaper_shares=tuple(_share_at(*one) for one in zip(solved.prices, segments, solved.saved, strict=True)),
        mean_loss=(least_loss + solved.loss) / len(asked),
        shed_fraction=solved.shed / max(1, sum(best)),
    )


@dataclass(frozen=True, slots=True)
class _Solved:
    """Price and saved steps of each window; the loss of saving them, and the dropped steps, of all together."""

    prices: list[float]
    saved: list[float]
    loss: float
    shed: float


def _by_window(asked: Sequence[TracedRequest], start_s: float, window_s: float) -> list[Counter[Choices]]:
    last_s = max(one.at_s for one in asked)
    counts: list[Counter[Choices]] = [Counter() for _ in range(1 + int((last_s - start_s) // window_s))]
    for one in asked:
        counts[int((one.at_s - start_s) // window_s)][one.choices] += 1
    return counts


def _best(choices: Choices) -> tuple[int, float]:
    """The choice of least loss; of equal ones that of fewest steps."""
    return min(choices, key=lambda choice: (choice[1], choice[0]))


def saving_segments(choices: Choices) -> list[Segment]:
    """The lower convex hull from the least loss down to the fewest steps, the cheapest saving first."""
    segments: list[Segment] = []
    steps, loss = _best(choices)
    while cheaper := [choice for choice in choices if choice[0] < steps]:
        slope, until, at = min(((at - loss) / (steps - fewer), fewer, at) for fewer, at in cheaper)
        segments.append(Segment(slope, steps - until))
        steps, loss = until, at
    return segments


def _segments(count: Counter[Choices]) -> list[Segment]:
    sizes: dict[float, float] = {}
    for choices, n in count.items():
        for slope, size in saving_segments(choices):
            sizes[slope] = sizes.get(slope, 0.0) + n * size
    return [Segment(slope, size) for slope, size in sorted(sizes.items())]


def _solve(
    best: Sequence[float], segments: Sequence[Sequence[Segment]], capacity: float, most_backlog: float
) -> _Solved:
    """Solve the module's program. Its columns are all segments, then shed work and backlog of each window."""
    windows, slopes = len(best), np.array([slope for one in segments for slope, _ in one])
    sizes = np.array([size for one in segments for _, size in one])
    owner = np.repeat(np.arange(windows), [len(one) for one in segments])
    model = highspy.HighsLp()
    model.num_col_, model.num_row_ = len(sizes) + 2 * windows, windows
    model.col_cost_ = np.concatenate([slopes, np.full(windows, SHED_PRICE), np.zeros(windows)])
    model.col_lower_ = np.zeros(model.num_col_)
    model.col_upper_ = np.concatenate([sizes, np.full(windows, highspy.kHighsInf), np.full(windows, most_backlog)])
    model.row_lower_ = np.array(best, dtype=float) - capacity
    model.row_upper_ = np.full(windows, highspy.kHighsInf)
    ones = len(sizes) + windows
    set_matrix(
        model,
        [(int(window), column, 1.0) for column, window in enumerate([*owner, *range(windows)])]
        + [(window, ones + window, 1.0) for window in range(windows)]
        + [(window + 1, ones + window, -1.0) for window in range(windows - 1)],
    )
    solver = make_solver({})
    solver.passModel(model)
    solver.run()
    solution = solver.getSolution()
    values = np.array(solution.col_value)
    saved = np.bincount(owner, values[: len(sizes)], minlength=windows)
    prices = [_snapped(max(0.0, dual), one) for dual, one in zip(solution.row_dual, segments, strict=True)]
    return _Solved(prices, saved.tolist(), float(values[: len(sizes)] @ slopes), float(values[len(sizes) : ones].sum()))


def _snapped(price: float, segments: Sequence[Segment]) -> float:
    """The slope that the solver's price means, so that segments at the price can be found by equality."""
    nearest = min((slope for slope, _ in segments), key=lambda slope: abs(slope - price), default=price)
    return nearest if abs(nearest - price) <= NEAR * max(1.0, price) else price


def _share_at(price: float, segments: Sequence[Segment], saved: float) -> float:
    """The saved share of the segments exactly at the price."""
    below = sum(size for slope, size in segments if slope < price)
    here = sum(size for slope, size in segments if slope == price)
    return min(1.0, max(0.0, (saved - below) / here)) if here > 0 else 0.0
