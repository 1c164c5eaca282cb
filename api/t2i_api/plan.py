"""The plan as it crosses from operator to gateways: `status.plan` of the pool, integers only.

Rendered by the operator, parsed by gateways, and by the operator again when it starts anew, so that a restart neither
forgets what the running plan was made for nor writes anything. Shares are per mille and sum to 1000 for every class
that is served; rates are requests per 1000 seconds.

`numbers` says where every single worker stands: the plan's counts, laid out so that as few as possible move
(`planning.assign`). Workers that were not ready when the plan was made stay where they stood, or join the group's
commonest level; they come on top of the plan's counts until the next plan counts on them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from t2i_api.status import ClassStatus, PlacementStatus, PlanStatus, ShiftStatus
from t2i_policy.level import Level
from t2i_policy.planning.assign import assign_levels
from t2i_policy.planning.plan import Method, Plan, PlanReason

FIXED = "Fixed"
Numbers = Mapping[tuple[str, Level], tuple[int, ...]]


class PlanError(ValueError):
    """`status.plan` cannot be used; the message says why. Keep the last good plan."""


@dataclass(frozen=True, slots=True)
class PlanDocument:
    """A plan with its revision, why it was made, the rates (requests/s by class) it was made for, when (RFC 3339), and
    which workers stand where. `fixed` = the spec gave it.
    """

    revision: int
    reason: str
    plan: Plan
    rates_rps: Mapping[str, float]
    numbers: Numbers
    made_at: str
    fixed: bool = False

    def level_of(self, group: str, number: int) -> Level | None:
        """Where a worker stands; None if the plan does not know it."""
        return next((level for (name, level), which in self.numbers.items() if name == group and number in which), None)

    def group_workers(self) -> dict[str, int]:
        """Workers by group that the plan counts on."""
        counts: dict[str, int] = {}
        for (group, _), workers in self.plan.workers.items():
            counts[group] = counts.get(group, 0) + workers
        return counts


def milli(rate_rps: float) -> int:
    """Requests per 1000 seconds."""
    return round(1000 * rate_rps)


def render_plan(document: PlanDocument) -> dict[str, Any]:
    """`status.plan`; `parse_plan` reads back what these integers can hold."""
    plan = document.plan
    places = sorted({*plan.workers, *document.numbers}, key=lambda place: (place[0], -place[1].steps_run, place[1]))
    status = PlanStatus(
        revision=document.revision,
        reason=document.reason,
        outcome=plan.reason,
        method=FIXED if document.fixed else plan.method,
        made_at=document.made_at,
        demand_milli_rps=milli(plan.demand_rps),
        shed_milli_rps=milli(plan.shed_rps),
        quality_percent=max(0, min(100, round(100 * (1 - plan.mean_loss)))),
        classes=tuple(
            ClassStatus(prompt_class=name, milli_rps=milli(rate)) for name, rate in sorted(document.rates_rps.items())
        ),
        placements=tuple(
            PlacementStatus(
                group=group,
                skipped_steps=level.skipped_steps,
                num_inference_steps=level.num_inference_steps,
                workers=plan.workers.get((group, level), 0),
                numbers=document.numbers.get((group, level), ()),
            )
            for group, level in places
        ),
        shifts=_shifts(plan.shift_map),
    )
    return status.model_dump(by_alias=True, mode="json", exclude_none=True)


def _shifts(shift_map: Mapping[tuple[str, Level], float]) -> tuple[ShiftStatus, ...]:
    rows: dict[str, list[tuple[Level, float]]] = {}
    for (name, level), share in sorted(shift_map.items()):
        rows.setdefault(name, []).append((level, share))
    return tuple(
        ShiftStatus(
            prompt_class=name,
            skipped_steps=level.skipped_steps,
            num_inference_steps=level.num_inference_steps,
            share_per_mille=share,
        )
        for name, row in rows.items()
        for (level, _), share in zip(row, to_per_mille([share for _, share in row]), strict=True)
        if share > 0
    )


def to_per_mille(shares: Sequence[float]) -> list[int]:
    """Whole shares that sum to 1000: rounded down, what is left goes to the largest remainders."""
    total = sum(shares)
    exact = [1000 * share / total for share in shares]
    whole = [int(share) for share in exact]
    order = sorted(range(len(exact)), key=lambda at: (whole[at] - exact[at], at))
    for at in order[: 1000 - sum(whole)]:
        whole[at] += 1
    return whole


def parse_plan(document: Mapping[str, Any]) -> PlanDocument:
    """Read `status.plan`.

    Raises:
        PlanError: not a plan, or one that this program does not understand.
    """
    try:
        status = PlanStatus.model_validate(document)
        fixed = status.method == FIXED
        plan = Plan(
            workers={(part.group, _level(part)): part.workers for part in status.placements if part.workers},
            shift_map={(part.prompt_class, _level(part)): part.share_per_mille / 1000 for part in status.shifts},
            demand_rps=status.demand_milli_rps / 1000,
            shed_rps=status.shed_milli_rps / 1000,
            mean_loss=(100 - status.quality_percent) / 100,
            reason=PlanReason(status.outcome),
            method=Method.EXACT if fixed else Method(status.method),
        )
        numbers = {(part.group, _level(part)): tuple(part.numbers) for part in status.placements if part.numbers}
    except (ValidationError, ValueError) as error:
        raise PlanError(f"status.plan is not usable: {error}") from error
    rates = {part.prompt_class: part.milli_rps / 1000 for part in status.classes}
    return PlanDocument(status.revision, status.reason, plan, rates, numbers, status.made_at or "", fixed)


def _level(part: PlacementStatus | ShiftStatus) -> Level:
    return Level(part.skipped_steps, part.num_inference_steps)


def place_workers(
    plan: Plan, sizes: Mapping[str, int], counted_on: Mapping[str, frozenset[int]], before: Numbers
) -> Numbers:
    """Numbers of workers by (group, level). `sizes` has all workers of each group, `counted_on` those the plan counts
    on; see the module for the others.
    """
    standing = {(group, number): level for (group, level), which in before.items() for number in which}
    placed: dict[tuple[str, Level], list[int]] = {}
    for group, size in sizes.items():
        counts = {level: count for (name, level), count in plan.workers.items() if name == group}
        ready = sorted(counted_on.get(group, frozenset()))
        names = {f"{number:06d}": number for number in ready}
        stood = {name: standing[group, number] for name, number in names.items() if (group, number) in standing}
        assigned = assign_levels(plan, {group: list(names)}, stood)
        for name, level in assigned.items():
            placed.setdefault((group, level), []).append(names[name])
        commonest = max(sorted(counts), key=lambda level: counts[level]) if counts else None
        for number in range(size):
            level_or_none = standing.get((group, number), commonest)
            if number not in ready and level_or_none is not None:
                placed.setdefault((group, level_or_none), []).append(number)
    return {place: tuple(sorted(which)) for place, which in placed.items()}
