"""Assignment: which worker stands at which level, from the plan's counts, moving as few as possible.

A worker that is at a level with places left stays there; the rest are filled in by name. Only ready workers take part;
one that comes back takes what is free. Levels are affinities, so a move costs a label and nothing else,
but a stable picture is worth having.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from t2i_policy.level import Level
from t2i_policy.planning.plan import Numbers, Plan
from t2i_policy.pool_view import WorkerView


class Numbered(NamedTuple):
    """A worker by its number in its group."""

    group: str
    number: int


#: Names workers, and sorts them.
Name = TypeVar("Name", str, Numbered)


def assign_ready(plan: Plan, workers: Iterable[WorkerView]) -> dict[str, Level]:
    """Worker name -> level, for those that are ready."""
    ready = [worker for worker in workers if worker.ready]
    groups: dict[str, list[str]] = {}
    for worker in ready:
        groups.setdefault(worker.group, []).append(worker.name)
    return assign_levels(plan, groups, {worker.name: worker.level for worker in ready if worker.level is not None})


def assign_levels(plan: Plan, workers: Mapping[str, Sequence[Name]], before: Mapping[Name, Level]) -> dict[Name, Level]:
    """Worker name -> level, for the workers of each group. A group with more workers than planned for gets its
    plan's commonest level for the rest; one without a plan is left out.
    """
    assigned: dict[Name, Level] = {}
    for group, names in workers.items():
        places = _places(plan, group)
        if places:
            assigned |= _assign_group(places, sorted(names), before)
    return assigned


def place_workers(
    plan: Plan, sizes: Mapping[str, int], counted_on: Mapping[str, frozenset[int]], before: Numbers
) -> Numbers:
    """Numbers of workers by (group, level). `sizes` has all workers of each group, `counted_on` those the plan counts
    on. The others stay where they stood, or join the commonest level of their group, on top of the plan's counts.
    """
    standing = {Numbered(group, number): level for (group, level), which in before.items() for number in which}
    counted = {group: [Numbered(group, number) for number in counted_on.get(group, ())] for group in sizes}
    assigned = assign_levels(plan, counted, standing)
    placed: dict[tuple[str, Level], list[int]] = {}
    for group, size in sizes.items():
        places = _places(plan, group)
        commonest = _commonest(places) if places else None
        for number in range(size):
            worker = Numbered(group, number)
            level = assigned.get(worker) or standing.get(worker) or commonest
            if level is not None:
                placed.setdefault((group, level), []).append(number)
    return {place: tuple(which) for place, which in placed.items()}


def _places(plan: Plan, group: str) -> dict[Level, int]:
    return {level: count for (name, level), count in plan.workers.items() if name == group}


def _commonest(places: Mapping[Level, int]) -> Level:
    return max(sorted(places), key=lambda level: places[level])


def _assign_group(
    places: Mapping[Level, int], names: Sequence[Name], before: Mapping[Name, Level]
) -> dict[Name, Level]:
    left = dict(places)
    assigned: dict[Name, Level] = {}
    for name in names:
        level = before.get(name)
        if level is not None and left.get(level, 0) > 0:
            assigned[name] = level
            left[level] -= 1
    free = [level for level in sorted(left, key=lambda at: -at.cost) for _ in range(left[level])]
    rest = [name for name in names if name not in assigned]
    return assigned | dict(zip(rest, itertools.chain(free, itertools.repeat(_commonest(places))), strict=False))
