"""Workers that are loaded anew with another model, in virtual time."""

import itertools
from dataclasses import replace

import pytest

from t2i_policy.frontier import choose_ladder
from t2i_policy.level import Level
from t2i_policy.model_section import ModelSection
from t2i_policy.policies import PromptAware
from t2i_policy.profile import BandLoss
from t2i_simulated_pools import LADDER, STEPS, poisson, simulated_pool, step_profile
from t2i_simulator.engine import Simulation, simulate
from t2i_simulator.faults import Fault
from t2i_simulator.outcomes import Fate, Outcomes
from t2i_simulator.scenario import Scenario, ServiceTarget
from t2i_simulator.workers import Group

TURBO = Level(0, 2, model="turbo")
SECTION = ModelSection("turbo", 2, (0.5, 0.6), 0.5, (BandLoss(TURBO, -1.0, 1.01, 0.05, 0.0, 100),))
TARGET = ServiceTarget(slo_s=30.0, max_loss=0.2, max_queued=64)
RELOAD_S = 25.0
LOW_RPS, HIGH_RPS = 0.5, 6.0


def moving(rate_rps: float, own: int, turbo: int, seconds: float = 300.0, **changes: object) -> Scenario:
    """Workers of ten steps a second, and workers of a model of two; each takes RELOAD_S to become the other."""
    profile = replace(step_profile(), models=(SECTION,))
    pool = simulated_pool(poisson(rate_rps, round(rate_rps * seconds)), profile=profile, target=TARGET)
    ladder = choose_ladder(STEPS, LADDER.levels, profile, models=("turbo",)).ladder
    groups = Group("own", own, profile), Group("turbo", turbo, profile, "turbo")
    scenario = Scenario(ladder, profile, groups, TARGET, pool.arrived_s, pool.make_neighbours)
    return replace(scenario, reload_s={"": RELOAD_S, "turbo": RELOAD_S}, **changes)  # type: ignore[arg-type]


def held_at_end(outcomes: Outcomes, own: int, turbo: int) -> dict[str, int]:
    held = {"": own, "turbo": turbo}
    for move in outcomes.made_moves:
        held[move.from_model] -= 1
        held[move.to_model] += 1
    return held


def test_workers_follow_the_demand_one_at_a_time_and_nothing_is_lost() -> None:
    for rate_rps, own, turbo, to_model in ((LOW_RPS, 1, 4, ""), (HIGH_RPS, 4, 1, "turbo")):
        outcomes = simulate(moving(rate_rps, own, turbo), PromptAware())
        moves = outcomes.made_moves
        assert moves
        assert {move.to_model for move in moves} == {to_model}
        assert all(later.at_s - move.at_s >= RELOAD_S for move, later in itertools.pairwise(moves))
        assert min(held_at_end(outcomes, own, turbo).values()) >= 1
        assert outcomes.fates.count(Fate.LOST) == outcomes.fates.count(Fate.OPEN) == 0


def test_moves_serve_more_than_workers_that_stay() -> None:
    """A demand for which four reference workers are far too few."""
    scenario = moving(HIGH_RPS, 4, 1, seconds=300.0)
    stays = simulate(replace(scenario, reload_s={}), PromptAware())
    moves = simulate(scenario, PromptAware())
    assert moves.fates.count(Fate.SERVED) > 1.02 * stays.fates.count(Fate.SERVED)


def test_a_worker_that_came_back_serves_the_other_model() -> None:
    """Every worker of the pool's own model is busy longer than the pool could bear with the one turbo worker."""
    simulation = Simulation(moving(LOW_RPS, 1, 4), PromptAware())
    outcomes = simulation.run()
    own, turbo = (simulation._dispatchers.by_model[model].pool.workers for model in ("", "turbo"))
    assert len(own) == len(turbo) == 5
    for here, there in zip(own, turbo, strict=True):
        assert here.name == there.name
        assert not (here.holds and there.holds)
    away = len(outcomes.made_moves) and sum(one.holds for one in (*own, *turbo))
    assert away in (4, 5), "all but the one that is under way"
    assert any(worker.holds and worker.loop.steps_done(1e9) > 0 for worker in own if worker.group == "turbo")


def test_the_same_seed_gives_the_same_moves() -> None:
    assert simulate(moving(HIGH_RPS, 4, 1), PromptAware()) == simulate(moving(HIGH_RPS, 4, 1), PromptAware())


@pytest.mark.parametrize("at_s", [60.0, 65.0, 70.0, 80.0])
def test_a_worker_that_dies_on_its_way_loses_nothing(at_s: float) -> None:
    """While it drains its requests are tried elsewhere; while it loads it has none. It comes back later."""
    scenario = moving(HIGH_RPS, 4, 1, seconds=150.0, faults=tuple(Fault(f"own-{n}", at_s, at_s + 60) for n in range(2)))
    outcomes = simulate(scenario, PromptAware())
    assert outcomes.fates.count(Fate.LOST) == outcomes.fates.count(Fate.OPEN) == 0


@pytest.mark.parametrize("dying", ["own", "turbo"])
def test_what_waits_for_a_model_whose_last_worker_leaves_goes_to_another(dying: str) -> None:
    """Nobody is lost, though all of the model die under load: neither who waits nor who ran there."""
    count = {"own": 3, "turbo": 1}[dying]
    faults = tuple(Fault(f"{dying}-{number}", 100.0) for number in range(count))
    outcomes = simulate(moving(1.0, 3, 1, faults=faults, seconds=200.0), PromptAware())
    assert outcomes.fates.count(Fate.LOST) == outcomes.fates.count(Fate.OPEN) == 0
