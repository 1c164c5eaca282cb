"""How good any policy could have been on these requests: a linear program that knows every arrival beforehand.

Workers are a fluid of denoising steps, and no request waits for a slot or a step boundary. Requests of one slot of time
with the same choices are one flow n_g. x_gj of them are served at level j, d_g are dropped:

    sum_j x_gj + d_g = n_g                                            each request is served once, or dropped
    backlog_t >= backlog_t-1 + sum cost_j x_gj - steps_per_s slot_s   over the flows g of slot t
    backlog_t <= steps_per_s SLO                                      what waits after t must be done an SLO later
    sum d_g <= violations

Quality: least sum loss_gj x_gj at a stated number of violations, over what is then served. Dropping as many as allowed
is best there. Goodput: least sum loss_gj x_gj + sum d_g, with any number of violations.

A long image cannot be in time in a full batch when the SLO is tight. So a level costs more than its steps: cost_j =
steps x the least device time of a step. A batch size counts only if its step lasts at most SLO / steps on average.

Every term favours the bound, so no policy can beat it on the same requests, neighbours and expected losses. It comes
nearer than a policy may: it knows the future, and joins a full batch at any instant.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import highspy
import numpy as np

from t2i_policy.level import Level
from t2i_policy.planning.solver import make_solver, set_matrix
from t2i_policy.request.options import Limits, Neighbourhood, Option
from t2i_simulator.cached_rules import build_cached_rules
from t2i_simulator.outcomes import Outcomes
from t2i_simulator.scenario import Scenario
from t2i_simulator.workers import Group

SLOT_S = 5.0
NO_NEIGHBOUR = -2.0  # as `Outcomes.similarity` says it
DROPPED = 1.0  # what an image that does not come loses


class Choice(NamedTuple):
    """A level that a request may have: what it takes of the pool, in steps of full batches, and its expected loss."""

    cost: float
    loss: float


Choices = tuple[Choice, ...]


@dataclass(frozen=True, slots=True)
class TracedRequest:
    at_s: float
    choices: Choices


@dataclass(frozen=True, slots=True)
class Bounds:
    """Percent: the most quality at the stated violations (None: they cannot be kept), and the most goodput."""

    quality_percent: float | None
    goodput_percent: float


def bounds_of(met: Outcomes, scenario: Scenario, violations: int) -> Bounds:
    """For the requests and neighbourhoods that a policy's run met, with every kept step stored."""
    stored, limits = frozenset(scenario.ladder.skips), Limits(scenario.target.max_loss)
    slo_s, groups = scenario.target.slo_s, scenario.groups

    rules = build_cached_rules(scenario.ladder, scenario.profile, scenario.target)

    @cache
    def hull_of(options: tuple[Option, ...]) -> Choices:
        return lower_hull(Choice(cost_of(option.level, groups, slo_s), option.expected_loss) for option in options)

    def choices(similarity: float, repeated: bool) -> Choices:
        known = similarity > NO_NEIGHBOUR
        near = Neighbourhood(similarity if known else None, stored if known else frozenset(), repeated=repeated)
        return hull_of(rules.judge(near, limits).options)

    asked = [TracedRequest(*one) for one in zip(met.arrived_s, map(choices, met.similarity, met.repeated), strict=True)]
    steps_per_s = sum(group.num_workers * len(group.profile.step_s) / group.profile.step_s[-1] for group in groups)
    return solve_bounds(asked, steps_per_s, slo_s, violations)


def cost_of(level: Level, groups: Sequence[Group], slo_s: float) -> float:
    """cost_j of the module; of unlike groups, that of the best suited one."""
    steps = level.cost
    return steps * min(_device_share(group.profile.step_s, slo_s / steps) for group in groups)


def _device_share(step_s: Sequence[float], longest_s: float) -> float:
    """Device time of a step over that in a full batch, where a step may last `longest_s` on average."""
    shares = [duration_s / size for size, duration_s in enumerate(step_s, start=1)]
    if longest_s <= step_s[0]:
        return shares[0] / shares[-1]
    if longest_s >= step_s[-1]:
        return 1.0
    points = lower_hull(Choice(share, duration_s) for share, duration_s in zip(shares, step_s, strict=True))
    durations, least = [point.loss for point in points], [point.cost for point in points]
    return float(np.interp(longest_s, durations, least)) / shares[-1]


def lower_hull(points: Iterable[Choice]) -> Choices:
    """From the least loss down to the least cost; what two others beat between them is left out."""
    given = sorted(points, key=lambda one: (one.loss, one.cost))
    hull: list[Choice] = [given[0]]
    while cheaper := [one for one in given if one.cost < hull[-1].cost]:
        at = hull[-1]
        hull.append(min(cheaper, key=lambda one: ((one.loss - at.loss) / (at.cost - one.cost), one.cost)))
    return tuple(hull)


def solve_bounds(asked: Sequence[TracedRequest], steps_per_s: float, slo_s: float, violations: int) -> Bounds:
    """Both bounds, for requests in any order.

    Raises:
        ValueError: nothing was asked, or the pool makes no steps.
    """
    if not asked or steps_per_s <= 0:
        raise ValueError("need requests, and a pool that makes steps")
    program = _Program(asked, steps_per_s, slo_s)
    most_lost = program.least_lost(DROPPED, len(asked)) or 0.0  # all may be dropped, so it can always be done
    served = len(asked) - violations
    lost = program.least_lost(0.0, violations) if served else 0.0
    quality = None if lost is None else 100 * (1 - lost / max(1, served))
    return Bounds(quality, 100 * (1 - most_lost / len(asked)))


class _Program:
    """The module's program. Columns: served flows by level, dropped flows, backlogs. Rows: flows, slots, violations."""

    def __init__(self, asked: Sequence[TracedRequest], steps_per_s: float, slo_s: float) -> None:
        start_s = min(one.at_s for one in asked)
        flows = sorted(Counter((int((one.at_s - start_s) // SLOT_S), one.choices) for one in asked).items())
        slots, served = 1 + flows[-1][0][0], sum(len(choices) for (_, choices), _ in flows)
        self._dropped = served + np.arange(len(flows), dtype=np.int32)
        backlog, room = served + len(flows), len(flows)
        entries: list[tuple[int, int, float]] = []
        losses: list[float] = []
        for number, ((slot, choices), _) in enumerate(flows):
            for choice in choices:
                entries += [(number, len(losses), 1.0), (room + slot, len(losses), -choice.cost)]
                losses.append(choice.loss)
            entries.append((number, served + number, 1.0))
        entries += [(room + slot, backlog + slot, 1.0) for slot in range(slots)]
        entries += [(room + slot + 1, backlog + slot, -1.0) for slot in range(slots - 1)]
        self._limit = room + slots  # the row of violations
        entries += [(self._limit, int(column), 1.0) for column in self._dropped]
        counts = np.array([count for _, count in flows], float)
        infinity = highspy.kHighsInf
        model = highspy.HighsLp()
        model.num_col_, model.num_row_ = backlog + slots, self._limit + 1
        model.col_cost_ = np.concatenate([losses, np.zeros(len(flows) + slots)])
        model.col_lower_ = np.zeros(model.num_col_)
        model.col_upper_ = np.concatenate([np.full(backlog, infinity), np.full(slots, steps_per_s * slo_s)])
        model.row_lower_ = np.concatenate([counts, np.full(slots, -steps_per_s * SLOT_S), [0.0]])
        model.row_upper_ = np.concatenate([counts, np.full(slots + 1, infinity)])
        set_matrix(model, entries)
        self._solver = make_solver({})
        self._solver.passModel(model)

    def least_lost(self, dropped: float, violations: int) -> float | None:
        """Sum of losses, a dropped request counting `dropped`; None if `violations` cannot be kept."""
        count = len(self._dropped)
        self._solver.changeColsCost(count, self._dropped, np.full(count, dropped))
        self._solver.changeRowBounds(self._limit, 0.0, float(violations))
        self._solver.run()
        if self._solver.getModelStatus() != highspy.HighsModelStatus.kOptimal:
            return None
        return float(self._solver.getInfo().objective_function_value)
