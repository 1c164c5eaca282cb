"""Assignment: which worker stands at which level, from the plan's counts, moving as few as possible.

A worker that is at a level with places left stays there; the rest are filled in by name. Only ready workers take part;
one that comes back takes what is free. Levels are affinities, so a move costs a label and nothing else,
but a stable picture is worth having.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from t2i_policy.level import Level
from t2i_policy.planning.plan import Numbers, Plan
from t2i_policy.pool_view import WorkerView


class Numbered(NamedTuple):
    """A worker by its number in its group."""

    group: str
    number: int


#: Names workers, and sorts them.
Name = TypeVar("Name", str, Numbered)
#: All workers of a group hold the same model.
NO_MODELS: Mapping[Any, str] = MappingProxyType({})


def assign_ready(plan: Plan, workers: Iterable[WorkerView]) -> dict[str, Level]:
    """Worker name -> level, for those that are ready."""
    ready = [worker for worker in workers if worker.ready]
    groups: dict[str, list[str]] = {}
    for worker in ready:
        groups.setdefault(worker.group, []).append(worker.name)
    before = {worker.name: worker.level for worker in ready if worker.level is not None}
    return assign_levels(plan, groups, before, _held_by(ready))


def _held_by(workers: Sequence[WorkerView]) -> dict[str, str]:
    """The models of workers, where any group has several."""
    models: dict[str, set[str]] = {}
    for worker in workers:
        models.setdefault(worker.group, set()).add(worker.model)
    return {worker.name: worker.model for worker in workers if len(models[worker.group]) > 1}


def assign_levels(
    plan: Plan,
    workers: Mapping[str, Sequence[Name]],
    before: Mapping[Name, Level],
    models: Mapping[Name, str] = NO_MODELS,
) -> dict[Name, Level]:
    """Worker name -> level, for the workers of each group. A group with more workers than planned for gets its
    plan's commonest level for the rest; one without a plan is left out. `models`: which model a worker holds, where
    those of its group hold several; it is given levels of that one only.
    """
    assigned: dict[Name, Level] = {}
    for group, names in workers.items():
        for model in dict.fromkeys(models.get(name) for name in names):
            places = {at: n for at, n in _places(plan, group).items() if model is None or at.model == model}
            if places:
                assigned |= _assign_group(places, sorted(name for name in names if models.get(name) == model), before)
    return assigned


def place_workers(
    plan: Plan,
    sizes: Mapping[str, int],
    counted_on: Mapping[str, frozenset[int]],
    before: Numbers,
    models: Mapping[Numbered, str] = NO_MODELS,
) -> Numbers:
    """Numbers of workers by (group, level). `sizes` has all workers of each group, `counted_on` those the plan counts
    on. The others stay where they stood, or join the commonest level of their group, on top of the plan's counts.
    `models` as in `assign_levels`: a worker that moved to another model stands at no level of the one before.
    """
    standing = {Numbered(group, number): level for (group, level), which in before.items() for number in which}
    counted = {group: [Numbered(group, number) for number in counted_on.get(group, ())] for group in sizes}
    standing = {worker: at for worker, at in standing.items() if models.get(worker, at.model) == at.model}
    assigned = assign_levels(plan, counted, standing, models)
    placed: dict[tuple[str, Level], list[int]] = {}
    for group, size in sizes.items():
        for number in range(size):
            worker = Numbered(group, number)
            level = assigned.get(worker) or standing.get(worker) or _commonest_of(plan, group, models.get(worker))
            if level is not None:
                placed.setdefault((group, level), []).append(number)
    return {place: tuple(which) for place, which in placed.items()}


def _places(plan: Plan, group: str) -> dict[Level, int]:
    return {level: count for (name, level), count in plan.workers.items() if name == group}


def _commonest_of(plan: Plan, group: str, model: str | None) -> Level | None:
    places = {level: count for level, count in _places(plan, group).items() if model in (None, level.model)}
    return _commonest(places) if places else None


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
