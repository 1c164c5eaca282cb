"""Capacity: how many images a second one worker makes at a level while every one of them still meets the SLO."""

from t2i_policy.levels import Level
from t2i_policy.profile import LevelProfile

#: What a request waits before its first step, as a share of its own service time: with step-level joining a slot frees
#: somewhere within one service time of those ahead, half of it on average.
WAIT_SHARE = 0.5


def worker_rate_rps(profile: LevelProfile, level: Level, slo_s: float, wait_share: float = WAIT_SHARE) -> float:
    """Images/s at the measured batch size that makes most, among those with service + wait <= `slo_s`; 0 if none fits.

    The paper's mu_j, with the batch chosen as Proteus and DiffServe choose it.
    """
    best = 0.0
    for batch in range(1, max(1, len(profile.step_s)) + 1):
        service_s = profile.service_s(level, batch)
        if service_s > 0 and service_s * (1 + wait_share) <= slo_s:
            best = max(best, batch / service_s)
    return best
