"""Ablations: each variant is ours but for its one part; and the catalogue that names them all."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from small_pools import EXACT, K25, RULES, SHORT25, STEP_S, STORED, asks, place_level, pool_of, seen, worker
from t2i_policy.planning.plan import NO_PLAN
from t2i_policy.policies import PromptAware, ServingPolicy
from t2i_policy.pool_view import PoolView
from t2i_policy.request.decide import Arrival
from t2i_policy.request.options import Limits, Neighbourhood
from t2i_policy.request.placement import PlacementReason
from t2i_policy.request.served import ServedReason
from t2i_simulator.errors import UnknownPolicy
from t2i_simulator.rivals.ablations import Ablation, ablations
from t2i_simulator.rivals.catalogue import all_policies, policy_named, policy_names
from t2i_simulator.rivals.shift_map import ShiftMapAndBacklog

MIX = {"-1.00": 0.3, "0.75": 0.7, "0.95": 0.6, "none": 0.2}  # 1.8/s: just under what 8 workers make in full
BUSY = {name: 1.6 * rate for name, rate in MIX.items()}
EVERY: tuple[ServingPolicy, ...] = (*all_policies(), *ablations())

arrivals = st.builds(
    Arrival,
    limits=st.builds(
        Limits,
        max_loss=st.floats(0.0, 1.0),
        max_skipped_steps=st.one_of(st.none(), st.integers(0, 30)),
        exact=st.booleans(),
        fixed_steps=st.one_of(st.none(), st.just(30)),
    ),
    near=st.one_of(
        st.just(Neighbourhood(None, frozenset())),
        st.builds(Neighbourhood, st.floats(-1.0, 1.0), st.frozensets(st.sampled_from(sorted(STORED)))),
    ),
    left_s=st.floats(0.1, 20.0),
    draw=st.floats(0.0, 0.999),
)
pools = st.builds(pool_of, st.integers(0, 8), st.integers(0, 4), st.integers(0, 200))


def ablation(name: str) -> Ablation:
    """By name."""
    found = policy_named(name)
    assert isinstance(found, Ablation)
    return found


def pressed_pool(share: float) -> PoolView:
    """8 full workers with a backlog of `share` of the slack: an exact image alone leaves 15.8 s of 20."""
    steps_per_s = 8 / STEP_S[0]
    return PoolView(tuple(worker(f"w{n}", 4, steps_left=0) for n in range(8)), 1, round(share * 15.8 * steps_per_s))


# --- ours, whole ---


@settings(max_examples=60, deadline=None)
@given(arrival=arrivals, pool=pools)
def test_nothing_removed_is_ours(arrival: Arrival, pool: PoolView) -> None:
    """All switches on: the same plan and the same decisions as `PromptAware`."""
    whole, ours = Ablation("whole", "ours"), PromptAware()
    plan = whole.replan(RULES, NO_PLAN, seen(BUSY))
    assert plan == ours.replan(RULES, NO_PLAN, seen(BUSY))
    decided = whole.serve(RULES, plan, arrival, pool)
    assert decided == ours.serve(RULES, plan, arrival, pool)
    level = place_level(decided)
    assert whole.place(level, pool, 20.0, frozenset()) == ours.place(level, pool, 20.0, frozenset())


# --- one part removed ---


def test_without_the_price_only_deadlines_bend() -> None:
    """A backlog near the slack, and time enough: ours saves steps, without the price the wanted level is served."""
    policies = (PromptAware(), ablation("ours-deadline-only"))
    pool = pressed_pool(0.8)
    reasons = [one.serve(RULES, NO_PLAN, asks(0.8, left_s=100.0), pool).served.reason for one in policies]
    assert reasons == [ServedReason.LOAD, ServedReason.AS_WANTED]


def test_shift_map_draws_from_the_plan() -> None:
    """What ours was: under a plan that moves prompts the draw decides, with a little pressure and no price."""
    policy = ShiftMapAndBacklog()
    plan = policy.replan(RULES, NO_PLAN, seen(BUSY))
    reasons = {policy.serve(RULES, plan, asks(0.8, n / 50), pressed_pool(0.2)).served.reason for n in range(50)}
    assert ServedReason.PLANNED in reasons


def test_no_filling_always_spreads() -> None:
    """Where batching gains, ours tops up the fullest; without filling the request goes where it ends first."""
    views = [replace(worker(name, running), step_s=(0.08, 0.09, 0.1, 0.11)) for name, running in (("a", 3), ("b", 1))]
    pool = PoolView(tuple(views), 4, 160)
    placed = [policy.place(EXACT, pool, 20.0, frozenset()) for policy in (PromptAware(), ablation("ours-no-filling"))]
    assert [(at.worker, at.reason) for at in placed if at] == [
        ("a", PlacementReason.FILL_BATCH),
        ("b", PlacementReason.EARLIEST_FINISH),
    ]


@settings(max_examples=60, deadline=None)
@given(arrival=arrivals, pool=pools)
def test_parts_of_the_ladder_keep_to_themselves(arrival: Arrival, pool: PoolView) -> None:
    """Skips only: no short schedule that was not asked for. Fewer steps only: never a latent. In plan and serving."""
    skips, short = ablation("ours-skips-only"), ablation("fewer-steps-only")
    for policy in (skips, short):
        plan = policy.replan(RULES, NO_PLAN, seen({name: 1.9 * rate for name, rate in MIX.items()}))
        level = policy.serve(RULES, plan, arrival, pool).served.level
        drawn = {at for row in plan.shift_map.values() for at in row} | {level}
        if policy is short:
            assert not any(at.needs_latent for at in drawn)
        else:
            assert all(
                at.num_inference_steps == 50 or at.num_inference_steps == arrival.limits.fixed_steps for at in drawn
            )


def test_parts_of_the_ladder_bend() -> None:
    """Under pressure each uses what it has."""
    plan = NO_PLAN
    served = [
        ablation(name).serve(RULES, plan, asks(0.97, limits=Limits(0.15)), pressed_pool(0.95)).served.level
        for name in ("ours-skips-only", "fewer-steps-only")
    ]
    assert served == [K25, SHORT25]


# --- the catalogue and what every policy owes ---


def test_every_policy_has_a_name_of_its_own_and_a_source() -> None:
    """And can be had by that name; ours comes first."""
    assert len(policy_names()) == len(set(policy_names())) == 25
    assert policy_names()[0] == "prompt-aware"
    assert all(policy_named(name).name == name and policy_named(name).source for name in policy_names())


def test_unknown_policy_is_told_what_there_is() -> None:
    """Names the culprit and lists the others."""
    with pytest.raises(UnknownPolicy, match=r"'argus'; there are prompt-aware, paper, "):
        policy_named("argus")


@pytest.mark.parametrize("policy", EVERY, ids=lambda policy: policy.name)
@settings(max_examples=25, deadline=None)
@given(arrival=arrivals, pool=pools, scale=st.sampled_from([0.0, 0.5, 1.0, 3.0]))
def test_every_policy_keeps_the_contract(policy: ServingPolicy, arrival: Arrival, pool: PoolView, scale: float) -> None:
    """Any demand, feasible or not: the same answer twice, within what the request allows and the cache has, placed at
    a worker with a free slot."""
    here = seen({name: scale * rate for name, rate in MIX.items()}, pool)
    plan = policy.replan(RULES, NO_PLAN, here)
    assert policy.replan(RULES, NO_PLAN, here) == plan
    decided = policy.serve(RULES, plan, arrival, pool)
    assert policy.serve(RULES, plan, arrival, pool) == decided
    level, limits = decided.served.level, arrival.limits
    assert level in RULES.ladder.levels or level.num_inference_steps == limits.fixed_steps
    if limits.fixed_steps is not None:
        assert (level.skipped_steps, level.num_inference_steps) == (0, limits.fixed_steps)
    elif limits.exact:
        assert level == EXACT
    if level.needs_latent:
        assert level.skipped_steps in arrival.near.stored_steps
        assert limits.max_skipped_steps is None or level.skipped_steps <= limits.max_skipped_steps
    placed = policy.place(place_level(decided), pool, arrival.left_s, frozenset())
    free = {view.name for view in pool.ready if view.free_slots}
    assert placed.worker in free if placed is not None else not free or place_level(decided) != level
