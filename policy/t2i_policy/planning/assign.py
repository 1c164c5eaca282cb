"""Assignment: which worker stands at which level, from the plan's counts, moving as few as possible.

A worker that is at a level with places left stays there; the rest are filled in by name. Only ready workers take part;
one that comes back takes what is free. Levels are affinities, so a move costs a label and nothing else,
but a stable picture is worth having.
"""

from collections.abc import Mapping, Sequence

from t2i_policy.level import Level
from t2i_policy.planning.plan import Plan


def assign_levels(plan: Plan, workers: Mapping[str, Sequence[str]], before: Mapping[str, Level]) -> dict[str, Level]:
    """Worker name -> level, for the workers of each group. A group with more workers than planned for gets its
    plan's commonest level for the rest; one without a plan is left out.
    """
    assigned: dict[str, Level] = {}
    for group, names in workers.items():
        places = {level: count for (name, level), count in plan.workers.items() if name == group}
        if places:
            assigned |= _assign_group(places, sorted(names), before)
    return assigned


def _assign_group(places: Mapping[Level, int], names: Sequence[str], before: Mapping[str, Level]) -> dict[str, Level]:
    left = dict(places)
    commonest = max(sorted(places), key=lambda level: places[level])
    assigned: dict[str, Level] = {}
    for name in names:
        level = before.get(name)
        if level is not None and left.get(level, 0) > 0:
            assigned[name] = level
            left[level] -= 1
    for name in names:
        if name not in assigned:
            level = next((level for level in sorted(left, key=lambda at: -at.steps_run) if left[level] > 0), commonest)
            left[level] = left.get(level, 0) - 1
            assigned[name] = level
    return assigned
