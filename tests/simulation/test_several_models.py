"""A simulated pool whose workers hold several models: each model's workers run its levels, on its own steps."""

from dataclasses import replace

import numpy as np
import pytest

from t2i_policy.frontier import choose_ladder
from t2i_policy.level import Level
from t2i_policy.model_section import ModelSection
from t2i_policy.policies import PromptAware, ServingPolicy
from t2i_policy.profile import BandLoss, LevelProfile
from t2i_simulated_pools import LADDER, STEPS, poisson, simulated_pool, step_profile
from t2i_simulator.engine import Simulation, simulate
from t2i_simulator.faults import Fault
from t2i_simulator.outcomes import Fate, Outcomes
from t2i_simulator.rivals.priced_cascade import LightImage, PricedCascade
from t2i_simulator.rivals.several_models import ModelCascade, joint_prices, several_models, threshold
from t2i_simulator.scenario import Scenario, ServiceTarget
from t2i_simulator.true_loss import Truth, discriminator
from t2i_simulator.workers import Group

TURBO = Level(0, 2, model="turbo")
SECTION = ModelSection("turbo", 2, (0.5, 0.6), 0.0, (BandLoss(TURBO, -1.0, 1.01, 0.05, 0.0, 100),))
COUNT = 400
TARGET = ServiceTarget(slo_s=30.0, max_loss=0.2, max_queued=64)


def profile_of() -> LevelProfile:
    return replace(step_profile(), models=(SECTION,))


def two_models(rate_rps: float, own: int = 3, turbo: int = 1, **changes: object) -> Scenario:
    """Workers of ten steps a second each, and workers of a model of two steps."""
    profile = profile_of()
    pool = simulated_pool(poisson(rate_rps, COUNT), profile=profile, target=TARGET)
    groups = Group("own", own, profile), Group("turbo", turbo, profile, "turbo")
    ladder = choose_ladder(STEPS, LADDER.levels, profile, models=("turbo",)).ladder
    scenario = Scenario(
        ladder,
        profile,
        tuple(group for group in groups if group.num_workers),
        TARGET,
        pool.arrived_s,
        pool.make_neighbours,
        discriminator=discriminator(Truth(profile), range(COUNT)),
    )
    return replace(scenario, **changes)  # type: ignore[arg-type]


def share_of(outcomes: Outcomes, model: str) -> float:
    levels = [level for level in outcomes.levels if level is not None]
    return sum(level.model == model for level in levels) / len(levels)


def test_a_pool_of_one_model_runs_to_the_digit_as_without_models() -> None:
    """A profile that measured another model, and a pool in which nobody holds it."""
    profile = profile_of()
    plain = simulated_pool(poisson(0.6, COUNT), workers=3, target=TARGET)
    beside = replace(plain, profile=profile, groups=(replace(plain.groups[0], profile=profile),))
    assert simulate(beside, PromptAware()) == simulate(plain, PromptAware())


def test_load_moves_prompts_to_the_other_model() -> None:
    """At rest nobody leaves the reference; beyond what its workers carry everybody is still served."""
    calm, busy, full = (simulate(two_models(rate), PromptAware()) for rate in (0.05, 1.5, 3.0))
    assert share_of(calm, "turbo") == 0
    assert 0.05 < share_of(busy, "turbo") < share_of(full, "turbo")
    assert busy.fates.count(Fate.SERVED) == full.fates.count(Fate.SERVED) == COUNT
    alone = simulate(two_models(3.0, turbo=0), PromptAware())
    assert alone.fates.count(Fate.SERVED) < 0.95 * COUNT


def test_steps_run_are_those_of_each_model() -> None:
    outcomes = simulate(two_models(1.5), PromptAware())
    for level, steps in zip(outcomes.levels, outcomes.steps, strict=True):
        assert level is not None
        assert steps == level.steps_run


def test_a_pool_without_its_own_model_serves_what_its_workers_hold() -> None:
    outcomes = simulate(two_models(1.0, own=0, turbo=2), PromptAware())
    assert share_of(outcomes, "turbo") == 1
    assert outcomes.fates.count(Fate.SERVED) == COUNT


def test_prompts_go_elsewhere_when_the_last_worker_of_a_model_dies() -> None:
    """Those that wait for it then go too: none is lost."""
    dies = two_models(1.0, faults=(Fault("turbo-0", 100.0),))
    outcomes = simulate(dies, PromptAware())
    after = [
        level for at, level in zip(outcomes.arrived_s, outcomes.levels, strict=True) if at > 110 and level is not None
    ]
    assert after
    assert all(level.model == "" for level in after)
    assert Fate.LOST not in outcomes.fates


def test_who_would_be_late_is_drawn_by_another_model_that_is_in_time() -> None:
    """Workers of the reference step slower than anybody knew, so its queue lasts longer than it was admitted for."""
    faults = tuple(Fault(f"own-{number}", 100.0, 400.0, 5.0) for number in range(3))
    scenario = two_models(0.6, faults=faults)
    outcomes = simulate(scenario, PromptAware())
    stays = Simulation(scenario, PromptAware())
    for model in stays._dispatchers.by_model.values():
        model.dispatcher.elsewhere = lambda *_: False
    unmoved = stays.run()
    assert outcomes.fates.count(Fate.EXPIRED) < unmoved.fates.count(Fate.EXPIRED)
    assert Fate.OPEN not in outcomes.fates


def test_full_queue_of_one_model_refuses_nobody_whom_another_may_draw() -> None:
    nobody_waits = replace(TARGET, max_queued=0)
    assert not simulate(two_models(1.0, own=1, turbo=3, target=nobody_waits), PromptAware()).refusals
    assert simulate(two_models(1.0, own=4, turbo=0, target=nobody_waits), PromptAware()).refusals


@pytest.mark.parametrize("policy", several_models(), ids=lambda policy: policy.name)
def test_every_policy_serves_a_pool_of_several_models(policy: ServingPolicy) -> None:
    """Each request ends once, on a worker of its model; with room for everybody nearly all are served."""
    outcomes = simulate(two_models(0.5), policy)
    assert Fate.OPEN not in outcomes.fates
    assert outcomes.fates.count(Fate.SERVED) > 0.7 * COUNT
    assert share_of(outcomes, "turbo") > 0 or policy.name.startswith("ours")


def test_a_cascade_draws_the_worst_images_again() -> None:
    """Those that lost more than the threshold, as far as the heavy workers can: both runs count."""
    outcomes = simulate(two_models(0.3), ModelCascade())
    twice = [steps for level, steps in zip(outcomes.levels, outcomes.steps, strict=True) if level == LADDER.exact]
    once = [steps for level, steps in zip(outcomes.levels, outcomes.steps, strict=True) if level == TURBO]
    assert twice
    assert once
    assert set(twice) == {STEPS + 2}
    assert set(once) == {2}
    lost = discriminator(Truth(profile_of()), range(COUNT))
    kept, again = (
        [lost(number, TURBO) for number, level in enumerate(outcomes.levels) if level == at]
        for at in (TURBO, LADDER.exact)
    )
    assert sum(again) / len(again) > sum(kept) / len(kept)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_threshold_lets_that_share_of_images_be_drawn_again(share: float) -> None:
    lost = discriminator(Truth(profile_of()), range(4000))
    above = sum(lost(number, TURBO) > threshold(0.05, share) for number in range(4000)) / 4000
    assert above == pytest.approx(share, abs=0.03)


def test_our_cascade_looks_only_where_a_step_has_a_price() -> None:
    """At rest nobody runs twice; under load some do, and some light images stay."""
    for rate_rps, twice_at_least, twice_at_most in ((0.05, 0, 0), (0.6, 5, COUNT - 5)):
        outcomes = simulate(two_models(rate_rps), PricedCascade())
        twice = sum(
            level is not None and not level.model and steps > level.steps_run
            for level, steps in zip(outcomes.levels, outcomes.steps, strict=True)
        )
        assert twice_at_least <= twice <= twice_at_most
        assert Fate.OPEN not in outcomes.fates
    busy = simulate(two_models(2.0), PricedCascade())
    assert share_of(busy, "turbo") > 0.05


def test_a_light_image_that_is_there_goes_out_at_the_deadline() -> None:
    """Where the second run is on workers that step slower than anybody knew."""
    faults = tuple(Fault(f"own-{number}", 100.0, 400.0, 5.0) for number in range(3))
    scenario = two_models(0.6, faults=faults)
    outcomes = simulate(scenario, PricedCascade())
    twice = [
        number
        for number, level in enumerate(outcomes.levels)
        if level == TURBO and outcomes.finished_s[number] == outcomes.arrived_s[number] + TARGET.slo_s
    ]
    assert twice
    assert all(outcomes.fates[number] is Fate.SERVED for number in twice)


@pytest.mark.parametrize("errs", [0.0, 0.5])
def test_what_a_look_is_worth_is_the_mean_over_images(errs: float) -> None:
    """Against draws: the better of the light image, judged by what is seen, and the other offer."""
    image, rng = LightImage(0.06, errs), np.random.default_rng(0)
    lost = 0.06 * np.exp(0.5 * rng.standard_normal(400_000) - 0.125)
    seen = lost * np.exp(errs * rng.standard_normal(400_000))
    for other in (0.03, 0.06, 0.1):
        kept = seen <= image.seen_at(other)
        assert image.least_of(other) == pytest.approx(np.where(kept, lost, other).mean(), rel=0.01)
    assert image.least_of(0.0) == 0.0
    assert LightImage(0.0, errs).least_of(0.1) == 0.0


def test_joint_prices_are_those_at_which_the_demand_fits() -> None:
    """Nothing while all is exact; then what the other model loses, a step of those it saves; never less for more."""
    rules = Simulation(two_models(1.0), PromptAware())._rules
    for total_rps, least, most in ((0.1, 0.0, 0.0), (1.0, 0.05 / STEPS - 1e-9, 0.05), (20.0, 0.1, 10.0)):
        classes = rules.classes.with_rates({"none": total_rps})
        prices = joint_prices(classes, {"": 5.0, "turbo": 3.0}, 1.0)
        assert least <= prices[""] <= most
