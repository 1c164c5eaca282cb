"""Plans out of one look: when a new one is made, what becomes of a Fixed mix, and which worker gets which label."""

from dataclasses import replace
from typing import Any

import pytest

from pool_scenes import NOW, gateway, look, report, wanted, worker
from t2i_operator.clock import Instant
from t2i_operator.decide.demand import current_rates
from t2i_operator.decide.plan import decide_plan, is_plan_due
from t2i_operator.decide.reconcile import decide
from t2i_operator.decide.types import DesiredPool, LabelPod, Observed, WriteStatus
from t2i_policy.level import Level
from t2i_policy.planning.plan import NO_PLAN, Plan

FIXED = {"mode": "Fixed", "workers": [{"skippedSteps": 0, "workers": 1}, {"skippedSteps": 6, "workers": 1}]}
OTHER = {"mode": "Fixed", "workers": [{"skippedSteps": 6, "workers": 2}]}
LATER = Instant(NOW.unix_s + 120)  # past the dwell time


def status_of(seen: Observed, wants: DesiredPool, now: Instant = NOW) -> dict[str, Any]:
    """The status after this look."""
    found = [one.status for one in decide(seen, wants, now).actions if isinstance(one, WriteStatus)]
    return found[0] if found else dict(seen.status)


def running(reports: tuple[Any, ...] = (), **spec: Any) -> dict[str, Any]:
    """The status of a ready pool with these reports."""
    wants = wanted(**spec)
    return status_of(look(wants, reports=reports), wants)


@pytest.mark.parametrize(
    ("before", "reports", "now", "reason"),
    [
        pytest.param((), (report(2.0),), NOW, None, id="demand appears: not before the plan has dwelt"),
        pytest.param((), (report(2.0),), LATER, "DemandChanged", id="demand appears, and the plan is old"),
        pytest.param((report(2.0),), (report(4.0),), LATER, "DemandChanged", id="demand doubles"),
        pytest.param((report(2.0),), (report(2.1),), LATER, None, id="5 percent more: not worth it"),
        pytest.param((report(2.0),), (report(1.0),), NOW, None, id="demand falls: not before the plan has dwelt"),
        pytest.param((report(2.0),), (report(1.0),), LATER, "DemandChanged", id="demand fell, and the plan is old"),
        pytest.param((report(2.0),), (), LATER, None, id="nobody was heard: the demand of the plan stands"),
        pytest.param((), (report(0.1),), LATER, None, id="a request now and then counts as none"),
    ],
)
def test_new_plan_for_demand(before: Any, reports: Any, now: Instant, reason: str | None) -> None:
    """None: the running plan stays. The cheap question of the polls agrees with the decision."""
    wants = wanted()
    seen = look(status=running(before), reports=reports)
    old = decide_plan(wants, look(status=running(before), reports=before), NOW).plan
    plan = decide_plan(wants, seen, now).plan
    assert (plan.reason if plan.revision > old.revision else None) == reason
    assert is_plan_due(wants, seen, now) == (reason is not None)


def test_lost_worker_is_planned_without() -> None:
    """PoolChanged; the worker keeps its place for when it is back."""
    seen = look(status=running(), workers=(worker(0), worker(1, False)))
    plan = decide_plan(wanted(), seen, NOW).plan
    assert plan.reason == "PoolChanged"
    assert plan.revision == 2
    assert sum(plan.workers.values()) == 1
    assert sorted(number for numbers in plan.numbers.values() for number in numbers) == [0, 1]


def test_change_of_the_spec_is_planned_for_whatever_the_demand() -> None:
    """The generation is not the one that the status has seen."""
    before = running((report(2.0),))
    plan = decide_plan(wanted(), look(status=before, generation=2, reports=(report(2.0),)), NOW).plan
    assert plan.revision == before["plan"]["revision"] + 1


def test_silent_gateways_count_like_those_that_answer() -> None:
    """Two gateways are ready, one answered: twice what it says."""
    seen = look(gateways=(gateway(), gateway()), reports=(report(2.0),))
    assert sum(current_rates(seen, NO_PLAN, 0.0).values()) == pytest.approx(4.0, rel=0.01)


def test_demand_of_several_gateways_is_summed() -> None:
    """Each counts its own requests."""
    seen = look(gateways=(gateway(), gateway()), reports=(report(2.0), report(1.0, name="h")))
    assert sum(current_rates(seen, NO_PLAN, 0.0).values()) == pytest.approx(3.0, rel=0.01)


def placed(plan: Plan) -> dict[str, int]:
    """Workers by level."""
    return {level.label(12): count for (_, level), count in plan.workers.items()}


def test_fixed_mix_is_laid_out_before_anybody_is_ready() -> None:
    """It does not depend on readiness; without demand there is no quality to tell."""
    wants = wanted(mix=FIXED)
    status = status_of(look(wants, workers=(), gateways=()), wants)
    assert status["mix"] == "1x0 1x6"
    assert status["plan"]["demandMilliRps"] == 0
    assert "qualityPercent" not in status


def drawn(status: dict[str, Any], prompt_class: str) -> dict[str, int]:
    """Shares of a class by level, per mille."""
    shifts = [shift for shift in status["plan"]["shifts"] if shift["promptClass"] == prompt_class]
    return {Level(one["skippedSteps"], one["numInferenceSteps"]).label(12): one["sharePerMille"] for one in shifts}


def test_fixed_mix_says_where_a_prompt_now_and_then_is_served() -> None:
    """Without demand, and for classes without it beside others: at that of its levels which loses least. What no level
    of the mix may serve is drawn nowhere, and so served as it wants.
    """
    short = {"mode": "Fixed", "workers": [{"numInferenceSteps": 6, "workers": 2}]}
    quiet = running(mix=short)
    assert drawn(quiet, "none") == {"0/6": 1000}
    assert drawn(quiet, "exact") == {}
    both = {"mode": "Fixed", "workers": [{"workers": 1}, {"numInferenceSteps": 6, "workers": 1}]}
    assert drawn(running(mix=both), "none") == {"0": 1000}
    only_exact = replace(report(2.0), rates_rps={"exact": 2.0})
    busy = status_of(look(wanted(mix=both), status=running(mix=both), reports=(only_exact,)), wanted(mix=both), LATER)
    assert busy["plan"]["demandMilliRps"] == 2000
    assert drawn(busy, "exact") == {"0": 1000}
    assert drawn(busy, "none") == {"0": 1000}


def test_plan_of_an_older_version_learns_where_a_fixed_mix_serves() -> None:
    """It had rows for classes with demand only: after the upgrade there is one more plan, and then no other."""
    wants = wanted(mix=FIXED)
    old = running(mix=FIXED)
    old["plan"] = {**old["plan"], "shifts": []}
    new = status_of(look(wants, status=old), wants)
    assert new["plan"]["revision"] == old["plan"]["revision"] + 1
    assert new["plan"]["shifts"]
    assert status_of(look(wants, status=new), wants, LATER)["plan"] == new["plan"]


@pytest.mark.parametrize("demand", [False, True], ids=["at rest", "with demand of every class"])
def test_another_floor_is_another_shift_map(demand: bool) -> None:
    """The short schedule loses more than the pool now allows, and the mix has nothing else."""
    short = {"mode": "Fixed", "workers": [{"numInferenceSteps": 6, "workers": 2}]}
    classes = {shift["promptClass"] for shift in running(mix=short)["plan"]["shifts"]}
    reports = (replace(report(2.0), rates_rps=dict.fromkeys((*classes, "exact"), 0.2)),) if demand else ()
    before = running(reports, mix=short)
    strict = wanted(mix=short, slo={"latencyMilliseconds": 6000, "minQualityPercent": 100, "harmlessLossPercent": 0})
    after = status_of(look(strict, status=before, generation=2, reports=reports), strict)
    assert drawn(before, "none") == {"0/6": 1000}
    assert drawn(after, "none") == {}


def test_fixed_mix_gets_a_shift_map_for_its_demand() -> None:
    """Who is served where, and at which quality; not one worker moves for it."""
    wants = wanted(mix=FIXED)
    before = running(mix=FIXED)
    after = status_of(look(wants, status=before, reports=(report(2.0),)), wants, LATER)
    assert after["plan"]["revision"] == before["plan"]["revision"] + 1
    assert after["plan"]["reason"] == "DemandChanged"
    assert after["plan"]["placements"] == before["plan"]["placements"]
    shares = {}
    for shift in after["plan"]["shifts"]:
        shares[shift["promptClass"]] = shares.get(shift["promptClass"], 0) + shift["sharePerMille"]
    assert set(shares) >= {"exact", "none"}
    assert set(shares.values()) == {1000}
    assert 0 < after["qualityPercent"] <= 100
    again = status_of(look(wants, status=after, reports=(report(2.0),)), wants, LATER)
    assert again["plan"] == after["plan"]


def test_fixed_mix_sheds_what_it_cannot_serve() -> None:
    """All workers at a level that prompts without a neighbour may not have: their share is told as shed."""
    wants = wanted(mix=OTHER)
    after = status_of(look(wants, status=running(mix=OTHER), reports=(report(2.0),)), wants, LATER)
    assert after["plan"]["shedMilliRps"] > 0
    assert after["plan"]["outcome"] == "SomeShed"


def test_other_mix_moves_the_fewest() -> None:
    """Only the worker that has to."""
    before = running(mix=FIXED)
    after = status_of(look(wanted(mix=OTHER), status=before, generation=2), wanted(mix=OTHER))
    assert after["mix"] == "2x6"
    assert after["plan"]["reason"] == "SpecChanged"


@pytest.mark.parametrize(
    ("levels", "asked"),
    [
        pytest.param(("0-of-12", "0-of-12"), {}, id="right labels are left alone"),
        pytest.param((None, "0-of-12"), {"p-a-0": "0-of-12"}, id="a missing label is set"),
        pytest.param(("6-of-12", "nonsense"), {"p-a-0": "0-of-12", "p-a-1": "0-of-12"}, id="wrong ones are put back"),
    ],
)
def test_labels_follow_the_plan(levels: tuple[str | None, ...], asked: dict[str, str]) -> None:
    """Labels are a projection of the plan, never an input to it."""
    workers = tuple(worker(number, level=level) for number, level in enumerate(levels))
    actions = decide(look(status=running(), workers=workers), wanted(), NOW).actions
    assert {one.name: one.level for one in actions if isinstance(one, LabelPod)} == asked


def test_pods_beyond_the_size_get_no_level() -> None:
    """A group was made smaller; its last pod is on its way out."""
    actions = decide(look(status=running(), workers=(worker(0), worker(1), worker(7))), wanted(), NOW).actions
    assert "p-a-7" not in {one.name for one in actions if isinstance(one, LabelPod)}


def test_level_gone_from_the_ladder_is_left() -> None:
    """Workers that stood there move; none stays at a level that the spec no longer has."""
    before = running(mix=FIXED)
    wants = wanted(levels=[{"skippedSteps": 0}, {"numInferenceSteps": 6}])
    plan = decide_plan(wants, look(wants, status=before, generation=2), NOW).plan
    assert Level(6, 12) not in {level for _, level in plan.numbers}
    assert placed(plan) == {"0": 2}


def test_failing_worker_is_no_capacity() -> None:
    """A plan counts on the workers that gateways send to."""
    before = running((report(2.0),))
    failing = replace(report(2.0), left_out={"p-a-1": "Failing"})
    seen = look(status=before, reports=(failing,))
    assert is_plan_due(wanted(), seen, NOW)
    plan = decide_plan(wanted(), seen, NOW).plan
    assert sum(plan.workers.values()) == 1


def test_gateway_that_is_not_ready_says_nothing_of_demand() -> None:
    """It is asked for what it knows of workers. No client reaches it, so it does not speak for one that was silent."""
    idle = replace(report(0.0, name="h"), ready=False)
    seen = look(gateways=(gateway(), gateway(), gateway(False)), reports=(report(2.0), idle))
    plan = decide_plan(wanted(), seen, NOW).plan
    assert sum(plan.rates_rps.values()) == pytest.approx(4.0)
