"""A Fixed mix: workers stand where the pool's owner put them, and the shift map follows demand.

The map is the joint program's (`plan`), in which every worker has but one level: prompts go where they lose least as
long as the workers there keep up. Classes that it does not serve (no demand, no room) go where they lose least of all
the mix has. What no level of the mix may serve is drawn nowhere. The plan binds: requests draw their level from the
map, in an idle pool too, and the price of a step only goes down from there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from t2i_policy.level import Level
from t2i_policy.planning.classes import ClassTable
from t2i_policy.planning.plan import TIE_COST, GroupCapacity, Plan, PlanOutcome, PlanRules, ShiftMap, make_plan
from t2i_policy.planning.replan import count_workers, expected_rates, succeed, why_replan
from t2i_policy.policies import Course, PoolState, PromptAware, ServingPolicy
from t2i_policy.request.decide import Rules


def lay_out(by_level: Mapping[Level, int], sizes: Mapping[str, int]) -> Plan:
    """The workers that a Fixed mix asks for: levels of most steps fill the groups in their order. Without a shift map,
    which depends on demand.
    """
    left = dict(sizes)
    workers: dict[tuple[str, Level], int] = {}
    for level, wanted in sorted(by_level.items(), key=lambda item: (-item[0].steps_run, item[0])):
        for group in left:
            taken = min(wanted, left[group])
            if taken:
                workers[group, level] = taken
                left[group] -= taken
                wanted -= taken
    return Plan(workers, outcome=PlanOutcome.NO_DEMAND, binds=True, group_workers=sizes)


def rows_at_rest(mix: Plan, classes: ClassTable) -> ShiftMap:
    """The shift map without demand: each class at the one level of the mix where it loses least."""
    levels = {level for _, level in mix.workers}
    found: dict[str, dict[Level, float]] = {}
    for name, losses in classes.losses.items():
        allowed = sorted(levels & losses.keys())
        if allowed:
            found[name] = {min(allowed, key=lambda at: losses[at] + TIE_COST * at.steps_run): 1.0}
    return found


def with_shifts(
    mix: Plan,
    groups: Sequence[GroupCapacity],
    classes: ClassTable,
    rates_rps: Mapping[str, float],
    rules: PlanRules,
) -> Plan:
    """The laid-out mix with the shift map and the loss for these rates (requests/s by class). `groups`: what a worker
    of each group makes; one that is not among them carries nothing.
    """
    at_rest = rows_at_rest(mix, classes)
    if not rates_rps:
        return replace(mix, shift_map=at_rest)
    made_rps = {group.name: group.rates_rps for group in groups}
    held = [
        GroupCapacity(f"{group} {level}", count, {level: made_rps[group].get(level, 0.0)})
        for (group, level), count in mix.workers.items()
        if group in made_rps
    ]
    plan = make_plan(held, classes.with_rates(rates_rps), rules)
    shift_map = {**at_rest, **plan.shift_map}
    return replace(plan, workers=mix.workers, group_workers=mix.group_workers, shift_map=shift_map, binds=True)


@dataclass(frozen=True, slots=True)
class FixedMix(PromptAware):
    """`PromptAware` on workers that stay where they are: `by_level` of the groups' `sizes`; see the module."""

    by_level: Mapping[Level, int] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)

    def replan(self, rules: Rules, course: Course, seen: PoolState) -> Course:
        """New shares when demand moved enough or workers came or went; nobody moves."""
        rates_rps, group_workers = expected_rates(seen.demand, seen.now_s), count_workers(seen.groups)
        reason = why_replan(course.plan, rates_rps, group_workers, seen.now_s, self.planning.replan)
        if reason is None:
            return course
        mix = replace(lay_out(self.by_level, self.sizes), group_workers=group_workers)
        plan = with_shifts(mix, seen.groups, rules.classes, rates_rps, self.planning.plan)
        return Course(succeed(course.plan, plan, reason, seen.now_s))


def serving_policy(by_level: Mapping[Level, int], sizes: Mapping[str, int]) -> ServingPolicy:
    """The policy of a pool: `by_level` has the workers of a Fixed mix, and is empty for a mix that is planned."""
    return FixedMix(by_level=by_level, sizes=sizes) if by_level else PromptAware()
