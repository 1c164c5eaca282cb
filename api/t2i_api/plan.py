"""The plan as it crosses from operator to gateways: `status.plan` of the pool, integers only.

The operator renders it and gateways parse it. The operator parses it too when it starts anew: so a restart neither
forgets what the running plan was made for nor writes anything. Shares are per mille and sum to 1000 for every class
that is served; rates are requests per 1000 seconds.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from t2i_api.levels import coordinates
from t2i_api.status import ClassStatus, PlacementStatus, PlanStatus, ShiftStatus
from t2i_policy.level import Level
from t2i_policy.planning.plan import Method, Plan, PlanOutcome, ShiftMap, sort_row

FIXED = "Fixed"  # the method of a plan that binds


class PlanError(ValueError):
    """`status.plan` cannot be used; the message says why. Keep the last good plan."""


def render_plan(plan: Plan) -> PlanStatus:
    """`status.plan`; `parse_plan` reads back what these integers can hold."""
    places = sorted({*plan.workers, *plan.numbers}, key=lambda place: (place[0], -place[1].cost, place[1]))
    classes = tuple(
        ClassStatus(prompt_class=name, milli_rps=_milli(rate)) for name, rate in sorted(plan.rates_rps.items())
    )
    return PlanStatus(
        revision=plan.revision,
        reason=plan.reason,
        outcome=plan.outcome,
        method=FIXED if plan.binds else plan.method,
        made_at=render_time(plan.made_s) if plan.made_s else None,
        demand_milli_rps=sum(one.milli_rps for one in classes),
        shed_milli_rps=_milli(plan.shed_rps),
        quality_percent=max(0, min(100, round(100 * (1 - plan.mean_loss)))),
        classes=classes,
        placements=tuple(
            PlacementStatus(
                group=group,
                **coordinates(level),
                workers=plan.workers.get((group, level), 0),
                numbers=plan.numbers.get((group, level), ()),
            )
            for group, level in places
        ),
        shifts=_shifts(plan.shift_map),
        corrections_revision=plan.corrections_revision or None,
    )


def _milli(rate_rps: float) -> int:
    """Requests per 1000 seconds."""
    return round(1000 * rate_rps)


def render_time(at_s: float) -> str:
    """Seconds since 1970 as Kubernetes writes them: RFC 3339, whole seconds, UTC."""
    return datetime.fromtimestamp(int(at_s), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _shifts(shift_map: ShiftMap) -> tuple[ShiftStatus, ...]:
    return tuple(
        ShiftStatus(
            prompt_class=name,
            **coordinates(level),
            share_per_mille=share,
        )
        for name, row in sorted(shift_map.items())
        for level, share in sorted(zip(row, to_per_mille([*row.values()]), strict=True))
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


def parse_plan(document: Mapping[str, Any]) -> Plan:
    """Read `status.plan`.

    Raises:
        PlanError: not a plan, or one that this program does not understand.
    """
    try:
        status = PlanStatus.model_validate(document)
        binds = status.method == FIXED
        workers = {(part.group, part.level): part.workers for part in status.placements if part.workers}
        return Plan(
            workers=workers,
            shift_map=_shift_map(status.shifts),
            shed_rps=status.shed_milli_rps / 1000,
            mean_loss=(100 - status.quality_percent) / 100,
            outcome=PlanOutcome(status.outcome),
            method=Method.EXACT if binds else Method(status.method),
            rates_rps={part.prompt_class: part.milli_rps / 1000 for part in status.classes},
            group_workers=_by_group(workers),
            made_s=datetime.fromisoformat(status.made_at).timestamp() if status.made_at else 0.0,
            numbers={(part.group, part.level): tuple(part.numbers) for part in status.placements if part.numbers},
            binds=binds,
            revision=status.revision,
            reason=status.reason,
            corrections_revision=status.corrections_revision or 0,
        )
    except (ValidationError, ValueError) as error:
        raise PlanError(f"status.plan is not usable: {error}") from error


def _shift_map(shifts: Sequence[ShiftStatus]) -> ShiftMap:
    rows: dict[str, dict[Level, float]] = {}
    for part in shifts:
        rows.setdefault(part.prompt_class, {})[part.level] = part.share_per_mille / 1000
    return {name: sort_row(row) for name, row in rows.items()}


def _by_group(workers: Mapping[tuple[str, Level], int]) -> dict[str, int]:
    """The workers that the plan counts on."""
    counts: dict[str, int] = {}
    for (group, _), count in workers.items():
        counts[group] = counts.get(group, 0) + count
    return counts
