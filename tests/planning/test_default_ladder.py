"""A pool that names no levels: the frontier of its profile, each level with the reason why it stays or goes."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from t2i_api.parse import parse_pool
from t2i_policy.frontier import MAX_LEVELS, ChosenLadder, LadderSource, choose_ladder, paper_levels
from t2i_policy.level import Level
from t2i_policy.profile import BandLoss, LevelCost, LevelProfile
from t2i_policy.profile_document import parse_profile, render_profile

N = 20
EXACT, SHORT, SHORTER = Level(0, N), Level(0, 12), Level(0, 5)
FORECAST, TAIL = Level(0, N, forecast=2), Level(0, N, guided_steps=10)
EARLY, LATE = Level(10, N), Level(16, N)
POOL = """
apiVersion: t2iserving.dev/v1alpha1
kind: T2IServingPool
metadata: {name: demo}
spec:
  model: {source: "builtin://scenes", numInferenceSteps: 20}
  workerGroups: [{name: cpu, workers: 2}]
"""
MIX = "  mix: {mode: Fixed, workers: [{skippedSteps: 2, workers: 1}, {workers: 1}]}\n"


def anywhere(level: Level, loss: float, error: float = 0.0) -> BandLoss:
    return BandLoss(level, -1.0, 1.01, loss, error, 100)


def by_band(level: Level, far: float, near: float) -> list[BandLoss]:
    return [BandLoss(level, -1.0, 0.9, far, 0.0, 100), BandLoss(level, 0.9, 1.01, near, 0.0, 100)]


def profile_of(*bands: BandLoss) -> LevelProfile:
    return LevelProfile("digest", "cpu", N, (0.1,), 0.0, bands)


MEASURED = profile_of(
    anywhere(SHORT, 0.05),
    anywhere(FORECAST, 0.01),  # 11 computed: cheaper than SHORT and better
    anywhere(TAIL, 0.02),
    anywhere(SHORTER, 0.2),
    *by_band(EARLY, 0.3, 0.0),  # 10 steps: pays where it is near
    *by_band(LATE, 0.4, 0.15),  # 4 steps
)


def reasons(chosen: ChosenLadder) -> Mapping[Level, str]:
    return {one.level: one.reason for one in chosen.judged}


def test_levels_that_another_beats_are_left_out_and_told() -> None:
    chosen = choose_ladder(N, (), MEASURED)
    assert (chosen.ladder.levels, chosen.source) == ((EXACT, FORECAST, EARLY, SHORTER, LATE), LadderSource.PROFILE)
    told = reasons(chosen)
    assert told[SHORT] == told[TAIL] == "0+f2 costs and loses no more"
    assert told[EARLY] == "no cheaper one loses less at similarities 0.90 to 1.00"
    assert told[LATE] == "no cheaper one loses less at similarities -1.00 to 1.00", (
        "the cheapest of all, whatever it loses"
    )
    assert "left out: 0+g10 (0+f2 costs and loses no more), 0/12" in chosen.sentence


def test_a_skip_that_pays_nowhere_goes() -> None:
    chosen = choose_ladder(N, (), profile_of(anywhere(FORECAST, 0.0), *by_band(Level(4, N), 0.3, 0.01)))
    assert chosen.ladder.levels == (EXACT, FORECAST)


def test_loss_counts_with_its_error_and_cost_as_measured() -> None:
    """Few samples promise little; and unguided steps that take as long as guided ones save nothing."""
    assert (
        SHORT in choose_ladder(N, (), profile_of(anywhere(SHORT, 0.05), anywhere(FORECAST, 0.01, 0.05))).ladder.levels
    )
    guided = Level(0, N, guided_steps=4)  # computes 12 guided steps' worth
    measured = profile_of(anywhere(guided, 0.01), anywhere(Level(0, 13), 0.02))
    assert Level(0, 13) not in choose_ladder(N, (), measured).ladder.levels
    slow = replace(measured, costs=(LevelCost(guided, 15.5),))
    assert Level(0, 13) in choose_ladder(N, (), slow).ladder.levels
    assert parse_profile(render_profile(slow)) == slow


def test_without_anything_but_skips_the_papers_ladder_stays() -> None:
    skips = profile_of(*by_band(EARLY, 0.3, 0.0))
    for profile in (None, skips):
        chosen = choose_ladder(N, (), profile)
        assert (chosen.source, chosen.ladder.levels) == (LadderSource.DEFAULT, paper_levels(N))


def test_levels_that_the_pool_names_are_its_levels() -> None:
    chosen = choose_ladder(N, (EXACT, SHORT), MEASURED)
    assert (chosen.source, chosen.ladder.levels) == (LadderSource.SPEC, (EXACT, SHORT))


def test_every_process_reads_the_same_levels_and_a_fixed_mix_keeps_its_own() -> None:
    spec = parse_pool(POOL + MIX).spec
    chosen = spec.choose_ladder(MEASURED)
    filled = spec.filled_in(chosen)
    assert filled.ladder == chosen.ladder
    assert Level(2, N) in filled.ladder.levels
    assert reasons(chosen)[Level(2, N)] == "the mix names it"
    assert filled.choose_ladder(MEASURED).ladder == chosen.ladder  # whoever asks again gets the same
    assert filled.pinned_workers == spec.pinned_workers


def test_old_documents_stay_as_they_are() -> None:
    spec = parse_pool(POOL).spec
    assert spec.filled_in(spec.choose_ladder(profile_of(*by_band(EARLY, 0.3, 0.0)))) is spec


@pytest.mark.parametrize("number", [MAX_LEVELS - 1, 60])
def test_a_ladder_fits_into_a_document(number: int) -> None:
    """Every level of these loses a little more for a little less."""
    bands = [BandLoss(Level(0, steps), -1, 1.01, (100 - steps) / 100, 0.0, 9) for steps in range(1, number + 1)]
    chosen = choose_ladder(100, (), LevelProfile("digest", "cpu", 100, (0.1,), 0.0, tuple(bands)))
    assert len(chosen.ladder.levels) == min(number + 1, MAX_LEVELS)
    assert {Level(0, 1), Level(0, number), Level(0, 100)} <= set(chosen.ladder.levels)
