"""What a row says of a run: goodput counts quality in time, and one policy holds against another by both or by it."""

from dataclasses import replace

import pytest

from t2i_policy.level import Level
from t2i_simulated_pools import LADDER, STEPS, step_profile
from t2i_simulator.outcomes import Fate, Outcomes
from t2i_simulator.report import Row, Setting, measure, summarise
from t2i_simulator.true_loss import Truth

SLO_S = 30.0


def row_of(*ends: tuple[Fate, float, int]) -> Row:
    """Requests that all came at 0: how they ended, after how many seconds, and the steps they skipped."""
    outcomes = Outcomes.begin([0.0] * len(ends))
    for number, (fate, took_s, skipped) in enumerate(ends):
        outcomes.fates[number], outcomes.finished_s[number] = fate, took_s
        if fate is Fate.SERVED:
            outcomes.levels[number], outcomes.similarity[number] = Level(skipped, STEPS), 0.95
    setting = Setting("trace", LADDER, SLO_S, 1, range(len(ends)))
    return summarise("policy", outcomes, setting, measure(outcomes, setting, Truth(step_profile(), spread=0.0)))


def test_goodput_counts_the_quality_of_images_in_time() -> None:
    """Of four: one exact, one that lost 0.2 %, one late, one refused."""
    row = row_of((Fate.SERVED, 1, 0), (Fate.SERVED, 1, 8), (Fate.SERVED, 31, 0), (Fate.SHED, 0, 0))
    assert row.violations == 2
    assert row.goodput_percent == pytest.approx(100 * (1 + 0.998) / 4)
    assert row.quality_percent == pytest.approx(100 * (2 + 0.998) / 3)


def test_picture_quality_leaves_diversity_out() -> None:
    """A prompt that is asked again loses diversity too, which the papers do not measure."""
    profile = step_profile()
    profile = replace(profile, losses=tuple(replace(one, diversity_loss=0.3) for one in profile.losses))
    outcomes = Outcomes.begin([0.0])
    outcomes.fates, outcomes.levels = [Fate.SERVED], [Level(8, STEPS)]
    outcomes.similarity, outcomes.repeated = [1.0], [True]
    setting = Setting("trace", LADDER, SLO_S, 1, [0])
    row = summarise("policy", outcomes, setting, measure(outcomes, setting, Truth(profile, spread=0.0)))
    assert row.quality_percent == pytest.approx(100 * (1 - 0.002 - 0.3))
    assert row.picture_quality_percent == pytest.approx(99.8)


@pytest.mark.parametrize(
    ("violated", "quality", "goodput", "holds"),
    [
        pytest.param(1.0, 97.0, 96.0, True, id="equal in all"),
        pytest.param(1.0, 96.0, 95.0, True, id="better quality at equal violations"),
        pytest.param(0.5, 96.0, 95.5, True, id="the other violates less and is worse in goodput"),
        pytest.param(0.0, 97.0, 97.0, False, id="the other violates less at equal quality"),
        pytest.param(2.0, 99.0, 97.0, False, id="the other violates more, but its goodput is better"),
    ],
)
def test_who_holds_against_whom(violated: float, quality: float, goodput: float, holds: bool) -> None:
    """Ours: 1 % violated, 97 % quality, 96 % goodput."""
    some = row_of((Fate.SERVED, 1, 0))
    ours = replace(some, violation_percent=1.0, quality_percent=97.0, goodput_percent=96.0)
    other = replace(some, violation_percent=violated, quality_percent=quality, goodput_percent=goodput)
    assert ours.holds_against(other) is holds
