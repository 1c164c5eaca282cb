"""Capacity: how many images a second one worker makes at a level while every one of them still meets the SLO."""

from collections.abc import Iterable, Sequence

from t2i_policy.level import Level
from t2i_policy.planning.plan import GroupCapacity
from t2i_policy.pool_view import WorkerView
from t2i_policy.profile import LevelProfile, step_time

#: What a request waits before its first step, as a share of its own service time: with step-level joining a slot frees
#: somewhere within one service time of those ahead, half of it on average.
WAIT_SHARE = 0.5


def worker_rate_rps(
    step_s: Sequence[float], fixed_s: float, level: Level, slo_s: float, wait_share: float = WAIT_SHARE
) -> float:
    """Images/s at the measured batch size that makes most, among those with service + wait <= `slo_s`; 0 if none fits.

    The paper's mu_j, with the batch chosen as Proteus and DiffServe choose it. `step_s[b - 1]` is one step at batch b.
    """
    best = 0.0
    for batch in range(1, max(1, len(step_s)) + 1):
        run_s = level.cost * step_time(step_s, batch)
        if run_s > 0 and (run_s + fixed_s) * (1 + wait_share) <= slo_s:
            best = max(best, batch / run_s)  # the fixed part does not hold a slot
    return best


def needed_slo_s(step_s: Sequence[float], fixed_s: float, level: Level, wait_share: float = WAIT_SHARE) -> float:
    """The shortest SLO that an image of this level meets on such a worker, alone in its batch."""
    return (level.cost * step_time(step_s, 1) + fixed_s) * (1 + wait_share)


def group_capacities(workers: Iterable[WorkerView], levels: Sequence[Level], slo_s: float) -> tuple[GroupCapacity, ...]:
    """What the ready workers of each group that hold the same model can do, at levels of that model: by the
    measurements of the first of them."""
    groups: dict[tuple[str, str], list[WorkerView]] = {}
    for worker in workers:
        if worker.ready:
            groups.setdefault((worker.group, worker.model), []).append(worker)
    return tuple(
        GroupCapacity(
            name,
            len(members),
            {
                level: worker_rate_rps(members[0].step_s[: members[0].batch_cap], members[0].fixed_s, level, slo_s)
                for level in levels
                if level.model == model
            },
            model,
        )
        for (name, model), members in sorted(groups.items())
    )


def profiled_rates(profile: LevelProfile, levels: Iterable[Level], slo_s: float) -> dict[Level, float]:
    """Images/s of one worker of the profile's device at each level, whichever model it would have to hold for it.

    Raises:
        ProfileError: a level is of a model that was not measured.
    """
    rates: dict[Level, float] = {}
    for level in levels:
        measured = profile.section(level.model)
        rates[level] = worker_rate_rps(measured.step_s, measured.fixed_s, level, slo_s)
    return rates
