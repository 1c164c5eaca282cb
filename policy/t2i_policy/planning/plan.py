"""The plan: workers per (group, level) and the shift map, from one exact joint program.

The paper (arXiv 2502.06798) assigns workers to levels first and then routes prompts between neighbouring levels. Here
both are one mixed-integer program, solved by HiGHS:

    minimise   sum_ij x_ij D(i,j)  +  SHED_LOSS sum_i shed_i
    subject to sum_j x_ij + shed_i = rate_i                              every prompt class i is served or shed
               sum_i x_ij         <= sum_g n_gj mu_gj                    at every level j
               sum_j n_gj          = N_g, n_gj whole                     the pool is fixed

In a Fixed mix the n_gj are pinned to what the pool's owner asks for. Such a plan binds, so classes without demand or
room have a row too: where they lose least of all the mix has.

i are prompt classes (bands of similarity, or the paper's wanted levels), and j are levels of the hybrid ladder. D is
the measured loss, and mu is what one worker of a group makes within the SLO. A pair without D is not allowed: the
latent is not there, or the loss is above the floor. Shedding costs more than any loss, so the most is served first and
best second; what is shed is told. x row-normalised is the shift map. A plan always comes back: past the time limit the
best found, and if there is none, the greedy one. `program` solves it, and says how exactly in large pools.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType

from t2i_policy.level import Level
from t2i_policy.planning.program import Pair, Program, ProgramColumn, Solution, solve

SHED_LOSS = 10.0  # above any loss, which is at most 1
TIE_COST = 1e-5  # a step: between levels that lose alike, fewer steps
SPARE_COST = 1e-6  # breaks ties: who is not needed stands at most steps; of equal groups the first ones bend
TIME_LIMIT_S = 1.0
TINY_RPS = 1e-6


@dataclass(frozen=True, slots=True)
class GroupCapacity:
    """`num_workers` equal workers; `rates_rps` images/s of one of them at each level (absent or 0: cannot).

    Where workers of a group hold several models, those of each model are a capacity of the group: `model` is theirs.
    """

    name: str
    num_workers: int
    rates_rps: Mapping[Level, float]
    model: str = ""


@dataclass(frozen=True, slots=True)
class PromptClass:
    """Prompts that lose alike: their arrival rate, and the loss (fraction of exact) at each level they may have."""

    name: str
    rate_rps: float
    losses: Mapping[Level, float]


class PlanOutcome(StrEnum):
    """What a plan achieves."""

    ALL_SERVED = "AllServed"
    SOME_SHED = "SomeShed"  # no assignment serves everything within the floor
    NO_DEMAND = "NoDemand"  # all workers at the level that loses least
    NO_WORKERS = "NoWorkers"


class Method(StrEnum):
    """How it was found."""

    EXACT = "Exact"
    NEAR = "Near"  # a large pool's: within a hundredth of a percent of quality, see `program`
    TIME_LIMIT = "TimeLimit"  # the best found in time
    GREEDY = "Greedy"


#: Workers by group and level.
Places = Mapping[tuple[str, Level], int]
#: Which workers of the group stand there.
Numbers = Mapping[tuple[str, Level], tuple[int, ...]]
#: By class: the share of its prompts that each level serves, most steps first.
ShiftMap = Mapping[str, dict[Level, float]]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is planned, how good it is, what it was made for, and why it replaced the plan before.

    Rows of the shift map sum to 1 for classes that are served at all. `shed_rps` of the demand are refused; `mean_loss`
    is of those served. It was made for `rates_rps` by class and `group_workers`, at `made_s` (the clock is the
    maker's). `corrections_revision` tells by which corrections of the profile (0 = none). `numbers` are the workers of
    each place, if the operator named them. `binds`: the owner of the pool fixed the mix, so requests draw their level
    from the shift map.
    """

    workers: Places = field(default_factory=dict)
    shift_map: ShiftMap = field(default_factory=dict)
    shed_rps: float = 0.0
    mean_loss: float = 0.0
    outcome: PlanOutcome = PlanOutcome.NO_WORKERS
    method: Method = Method.EXACT
    rates_rps: Mapping[str, float] = field(default_factory=dict)
    group_workers: Mapping[str, int] = field(default_factory=dict)
    made_s: float = 0.0
    numbers: Numbers = field(default_factory=dict)
    binds: bool = False
    revision: int = 0  # of the first plan 1, rising
    reason: str = ""
    corrections_revision: int = 0

    @property
    def demand_rps(self) -> float:
        """Requests a second that it was made for."""
        return sum(self.rates_rps.values())

    def share(self, prompt_class: str, level: Level) -> float:
        """Of the class's prompts, those that this level serves."""
        return self.shift_map.get(prompt_class, {}).get(level, 0.0)

    def draw(self, prompt_class: str, draw: float) -> Level | None:
        """The level at `draw` of [0, 1) in the row of a class; None without a row."""
        row, until = self.shift_map.get(prompt_class), 0.0
        if not row:
            return None
        for level, share in row.items():
            until += share
            if draw < until:
                return level
        return next(reversed(row))  # shares may sum to a hair less than 1

    def level_of(self, group: str, number: int) -> Level | None:
        """Where a worker stands; None if the plan does not name it."""
        return next((level for (name, level), which in self.numbers.items() if name == group and number in which), None)


NO_PLAN = Plan()  # before the first one
NO_PINS: Places = MappingProxyType({})


def sort_row(shares: Mapping[Level, float]) -> dict[Level, float]:
    """A row of a shift map, most steps first."""
    return {level: shares[level] for level in sorted(shares, key=lambda at: (-at.cost, at))}


@dataclass(frozen=True, slots=True)
class _Found:
    """Raw amounts: whole workers, and images/s by (class, level)."""

    workers: dict[tuple[str, Level], int]
    flow_rps: dict[tuple[str, Level], float]
    method: Method


def make_plan(
    groups: Sequence[GroupCapacity],
    classes: Sequence[PromptClass],
    *,
    pinned: Places = NO_PINS,
    time_limit_s: float = TIME_LIMIT_S,
) -> Plan:
    """The best plan for this demand. `pinned`: where the owner of the pool put its workers; those of a
    group that is not in `groups` carry nothing.

    Raises:
        ValueError: a negative rate or worker count, or a name twice.
    """
    _check(groups, classes)
    made_for = Plan(
        rates_rps={one.name: one.rate_rps for one in classes if one.rate_rps > 0},
        group_workers=count_workers(groups),
        binds=bool(pinned),
    )
    if pinned:
        groups = _as_pinned(groups, pinned)
    if not any(group.num_workers for group in groups):
        return replace(made_for, shed_rps=made_for.demand_rps)
    found = _solve(groups, classes, pinned, time_limit_s) or _greedy(groups, classes, pinned)
    return _fill_in(made_for, found, classes)


def count_workers(groups: Iterable[GroupCapacity]) -> dict[str, int]:
    """By group."""
    counts: dict[str, int] = {}
    for group in groups:
        counts[group.name] = counts.get(group.name, 0) + group.num_workers
    return counts


def _check(groups: Sequence[GroupCapacity], classes: Sequence[PromptClass]) -> None:
    for names in ([(group.name, group.model) for group in groups], [one.name for one in classes]):
        if len(set(names)) != len(names):
            raise ValueError(f"names must be unique, got {sorted(map(str, names))}")
    for group in groups:
        if group.num_workers < 0 or any(rate < 0 for rate in group.rates_rps.values()):
            raise ValueError(f"group {group.name!r}: workers and rates must not be negative")
    for one in classes:
        if one.rate_rps < 0:
            raise ValueError(f"class {one.name!r}: the rate must not be negative")


def _as_pinned(groups: Sequence[GroupCapacity], pinned: Places) -> list[GroupCapacity]:
    """The groups with no levels but those where their workers stand."""
    made_rps = {group.name: group.rates_rps for group in groups}
    levels: dict[str, dict[Level, int]] = {}
    for (name, level), count in pinned.items():
        levels.setdefault(name, {})[level] = count
    return [
        GroupCapacity(name, sum(counts.values()), {at: made_rps.get(name, {}).get(at, 0.0) for at in counts})
        for name, counts in levels.items()
    ]


def rows_at_rest(losses: Mapping[str, Mapping[Level, float]], pinned: Places) -> dict[str, dict[Level, float]]:
    """The shift map of a Fixed mix without demand: each class at the one level of it where it loses least. A class that
    no level of it may serve has no row.
    """
    levels, rows = {level for _, level in pinned}, {}
    for name, row in losses.items():
        costs = {level: row[level] + TIE_COST * level.cost for level in sorted(levels & row.keys())}
        if costs:
            rows[name] = {min(costs, key=costs.__getitem__): 1.0}
    return rows


@dataclass(frozen=True, slots=True)
class NamedProgram:
    """A program, and what its places and pairs stand for, in their order."""

    program: Program
    spots: Sequence[tuple[GroupCapacity, Level]]
    lanes: Sequence[tuple[PromptClass, Level]]


def build_program(
    groups: Sequence[GroupCapacity], classes: Sequence[PromptClass], pinned: Places = NO_PINS
) -> NamedProgram:
    """The program in arrays."""
    spots = [(group, level) for group in groups for level in sorted(group.rates_rps, key=lambda at: -at.cost)]
    lanes = [(one, level) for one in classes for level in sorted(one.losses)]
    level_at = {level: position for position, level in enumerate(sorted({at for _, at in (*spots, *lanes)}))}
    group_at = {(group.name, group.model): position for position, group in enumerate(groups)}
    class_at = {one.name: position for position, one in enumerate(classes)}
    program = Program(
        num_workers=[group.num_workers if group.rates_rps else 0 for group in groups],
        demands_rps=[one.rate_rps for one in classes],
        places=[
            ProgramColumn(
                group_at[group.name, group.model],
                level_at[level],
                group.rates_rps[level],
                SPARE_COST * (1 + group_at[group.name, group.model]) * _cheapness(group, level),
                pinned.get((group.name, level)),
            )
            for group, level in spots
        ],
        pairs=[
            Pair(class_at[one.name], level_at[level], one.losses[level] + TIE_COST * level.cost) for one, level in lanes
        ],
        shed_cost=SHED_LOSS,
    )
    return NamedProgram(program, spots, lanes)


def _solve(
    groups: Sequence[GroupCapacity], classes: Sequence[PromptClass], pinned: Places, time_limit_s: float
) -> _Found | None:
    """The program solved and named again; None if the solver found nothing in time."""
    named = build_program(groups, classes, pinned)
    solution = solve(named.program, time_limit_s)
    if solution is None:
        return None
    return _Found(
        {(group.name, level): count for (group, level), count in zip(named.spots, solution.counts, strict=True)},
        {(one.name, level): flow for (one, level), flow in zip(named.lanes, solution.flows_rps, strict=True)},
        _method(solution),
    )


def _cheapness(group: GroupCapacity, level: Level) -> int:
    """How many levels of the group run more steps."""
    return sum(other.cost > level.cost for other in group.rates_rps)


def _method(solution: Solution) -> Method:
    if not solution.in_time:
        return Method.TIME_LIMIT
    return Method.NEAR if solution.near else Method.EXACT


def _greedy(groups: Sequence[GroupCapacity], classes: Sequence[PromptClass], pinned: Places) -> _Found:
    """Each worker in turn goes where it serves most of what is left, at least loss; valid, not always the best."""
    left = {one.name: one.rate_rps for one in classes}
    workers: dict[tuple[str, Level], int] = {}
    flows: dict[tuple[str, Level], float] = {}
    for group in groups:
        held = [level for (name, level), count in pinned.items() if name == group.name for _ in range(count)]
        for number in range(group.num_workers if group.rates_rps else 0):
            levels = held[number : number + 1] or sorted(group.rates_rps)
            level = min(levels, key=lambda at: _cost_left(classes, left, at, group.rates_rps[at]))
            workers[group.name, level] = workers.get((group.name, level), 0) + 1
            for name, served_rps in _served(classes, left, level, group.rates_rps[level]).items():
                left[name] -= served_rps
                flows[name, level] = flows.get((name, level), 0.0) + served_rps
    return _Found(workers, flows, Method.GREEDY)


def _served(
    classes: Sequence[PromptClass], left: Mapping[str, float], level: Level, rate_rps: float
) -> dict[str, float]:
    """What one worker at `level` takes of the classes that are left, least loss first."""
    taken: dict[str, float] = {}
    for one in sorted((one for one in classes if level in one.losses), key=lambda one: one.losses[level]):
        taken[one.name] = min(left[one.name], rate_rps)
        rate_rps -= taken[one.name]
    return taken


def _cost_left(classes: Sequence[PromptClass], left: Mapping[str, float], level: Level, rate_rps: float) -> float:
    """The objective's change if one more worker served at `level`."""
    served = _served(classes, left, level, rate_rps)
    return sum(served[one.name] * (one.losses[level] - SHED_LOSS) for one in classes if one.name in served)


def _fill_in(made_for: Plan, found: _Found, classes: Sequence[PromptClass]) -> Plan:
    demand_rps = made_for.demand_rps
    flows = {one.name: {at: found.flow_rps.get((one.name, at), 0.0) for at in one.losses} for one in classes}
    served = {name: sum(row.values()) for name, row in flows.items()}
    total_rps = sum(served.values())
    loss = sum(flows[one.name][at] * lost for one in classes for at, lost in one.losses.items())
    shed_rps = max(0.0, demand_rps - total_rps)
    outcome = PlanOutcome.ALL_SERVED if shed_rps <= TINY_RPS else PlanOutcome.SOME_SHED
    workers = {place: count for place, count in found.workers.items() if count}
    losses = {one.name: one.losses for one in classes}
    return replace(
        made_for,
        workers=workers,
        shift_map=(rows_at_rest(losses, workers) if made_for.binds else {})
        | {
            name: sort_row({at: flow / served[name] for at, flow in row.items() if flow > TINY_RPS * served[name]})
            for name, row in flows.items()
            if served[name] > TINY_RPS
        },
        shed_rps=shed_rps if shed_rps > TINY_RPS else 0.0,
        mean_loss=loss / total_rps if total_rps > TINY_RPS else 0.0,
        outcome=PlanOutcome.NO_DEMAND if demand_rps <= TINY_RPS else outcome,
        method=found.method,
    )
