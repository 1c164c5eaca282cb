"""The plan from operator to gateway: nothing is lost that a decision needs, and every worker stands somewhere."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from t2i_api.plan import (
    PlanError,
    parse_plan,
    render_plan,
    to_per_mille,
)
from t2i_policy.level import Level
from t2i_policy.planning.assign import place_workers
from t2i_policy.planning.plan import Method, Plan, PlanOutcome

EXACT, SKIP, SHORT = Level(0, 20), Level(10, 20), Level(0, 10)
BENT = Level(5, 20, forecast=2, guided_steps=12, solver="unipc")


#: Two groups, three levels, shares that thousandths can hold.
PLAN = Plan(
    workers={("a", EXACT): 2, ("b", SKIP): 1, ("b", BENT): 1},
    shift_map={"0.90": {EXACT: 0.25, SKIP: 0.5, BENT: 0.25}, "none": {EXACT: 1.0}},
    shed_rps=0.25,
    mean_loss=0.03,
    outcome=PlanOutcome.SOME_SHED,
    method=Method.TIME_LIMIT,
    rates_rps={"0.90": 1.0, "none": 0.5},
    group_workers={"a": 2, "b": 2},
    made_s=1.8e9,
    numbers={("a", EXACT): (0, 1), ("b", SKIP): (0, 1), ("b", BENT): (2,)},
    revision=3,
    reason="DemandChanged",
)


def document(plan: Plan = PLAN) -> dict[str, Any]:
    """As it stands in the pool's status."""
    return render_plan(plan).model_dump(by_alias=True, mode="json", exclude_none=True)


@pytest.mark.parametrize("plan", [PLAN, replace(PLAN, binds=True, method=Method.EXACT)], ids=["planned", "fixed"])
def test_rendered_plan_parses_back_equal(plan: Plan) -> None:
    """A gateway, and an operator that starts anew, see the very plan that was made."""
    assert parse_plan(document(plan)) == plan


def test_rendering_is_stable() -> None:
    """The same plan gives the same bytes, whatever its rates: an idle pool's status never changes."""
    uneven = replace(PLAN, rates_rps={"0.90": 1.0004, "none": 0.5004}, made_s=1.8e9 + 0.7)
    assert str(document(uneven)) == str(document(parse_plan(document(uneven))))


def test_unknown_plan_is_refused() -> None:
    """A plan of a newer operator must not be half understood."""
    rendered = document()
    for change in ({"method": "Oracle"}, {"revision": "three"}, {"placements": [{"group": "a"}]}):
        with pytest.raises(PlanError):
            parse_plan({**rendered, **change})


@given(st.lists(st.floats(0.001, 1000), min_size=1, max_size=40))
def test_shares_sum_to_a_thousand(shares: list[float]) -> None:
    """Rounding must not lose or invent traffic, and moves no share by more than one thousandth."""
    whole = to_per_mille(shares)
    assert sum(whole) == 1000
    assert all(abs(1000 * share / sum(shares) - at) <= 1 for share, at in zip(shares, whole, strict=True))


def standing(counts: dict[Level, int]) -> Plan:
    """A plan of group a."""
    return Plan({("a", level): count for level, count in counts.items() if count})


@given(
    st.lists(st.integers(0, 5), min_size=3, max_size=3),
    st.sets(st.integers(0, 14)),
)
def test_every_worker_stands_at_one_level(counts: list[int], gone: set[int]) -> None:
    """Ready or not, before and after a plan: the levels' workers sum to the pool (fault class O12)."""
    sizes = {"a": sum(counts)}
    levels = dict(zip((EXACT, SKIP, SHORT), counts, strict=True))
    plan = standing(levels)
    everybody = {"a": frozenset(range(sizes["a"]))}
    placed = place_workers(plan, sizes, everybody, {})
    assert {level: len(which) for (_, level), which in placed.items()} == {at: n for at, n in levels.items() if n}
    ready = {"a": everybody["a"] - gone}
    again = place_workers(standing({EXACT: len(ready["a"])}), sizes, ready, placed)
    assert sorted(number for which in again.values() for number in which) == list(
        range(sizes["a"]) if ready["a"] or placed else []
    )


def test_fixed_mix_is_kept_when_a_worker_goes_and_comes() -> None:
    """The same mix again: nobody moves."""
    sizes = {"a": 3, "b": 2}
    plan = Plan({("a", EXACT): 3, ("b", EXACT): 1, ("b", SHORT): 1})
    everybody = {group: frozenset(range(size)) for group, size in sizes.items()}
    placed = place_workers(plan, sizes, everybody, {})
    assert placed == {("a", EXACT): (0, 1, 2), ("b", EXACT): (0,), ("b", SHORT): (1,)}
    assert place_workers(plan, sizes, everybody, placed) == placed


def test_changed_mix_moves_only_those_it_must() -> None:
    """One more at the short schedule moves one worker."""
    sizes = {"a": 4}
    everybody = {"a": frozenset(range(4))}
    before = place_workers(standing({EXACT: 3, SHORT: 1}), sizes, everybody, {})
    after = place_workers(standing({EXACT: 2, SHORT: 2}), sizes, everybody, before)
    assert before[("a", SHORT)] == (3,)
    assert set(before["a", SHORT]) < set(after["a", SHORT])
