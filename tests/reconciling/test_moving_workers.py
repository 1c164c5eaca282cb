"""A pool whose workers move between models: one at a time, told by status, gone on with by whoever looks next."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from model_scenes import FEW_STEP_S, GROUPS, asked, few, look_at, two_models
from pool_scenes import NOW, worker
from t2i_api.status import PoolStatus
from t2i_operator.clock import Instant
from t2i_operator.decide.moving import FIRST_RELOAD_S, LATE_AFTER, LEAST_LATE_S
from t2i_operator.decide.reconcile import decide
from t2i_operator.decide.types import Announce, Decision, DesiredPool, MeasuredProfile, ModelSeen, Observed, WriteStatus
from t2i_policy.planning.moves import FollowedDemand

MOVES = {"moves": "Reload"}
#: More than the two workers of the large model make, exact only: those of the light one cannot help.
EXACT_ONLY = {"exact": 6.0}
HELD = {"p_a_0": "", "p_a_1": "", "p_b_0": "few", "p_b_1": "few"}


def held(**other: ModelSeen) -> dict[str, ModelSeen]:
    """What gateways say of all workers: ready with the model of their group, or otherwise."""
    return {name: ModelSeen(model, True) for name, model in HELD.items()} | other


def followed(rates_rps: Mapping[str, float]) -> FollowedDemand:
    """For ten minutes, and never another."""
    return FollowedDemand(dict(rates_rps), NOW.unix_s - 600, NOW.unix_s)


def scene(wants: DesiredPool, rates_rps: Mapping[str, float] | None = None, **facts: Any) -> Observed:
    """Exact images only are asked for, and have been for long."""
    rates = EXACT_ONLY if rates_rps is None else rates_rps
    usual = {"followed": followed(rates), "reports": (asked(dict(rates), **held()),)}
    return look_at(wants, **{**usual, **facts})


def wants_moves() -> DesiredPool:
    return two_models(mix=MOVES)


def written(decision: Decision) -> dict[str, Any]:
    return next(one.status for one in decision.actions if isinstance(one, WriteStatus))


def events_of(decision: Decision) -> dict[str, str]:
    return {one.reason: one.message for one in decision.actions if isinstance(one, Announce)}


def condition(status: Mapping[str, Any], kind: str) -> dict[str, Any]:
    return next(one for one in status["conditions"] if one["type"] == kind)


def later(seconds: float) -> Instant:
    return Instant(NOW.unix_s + seconds)


def numbers(status: Mapping[str, Any]) -> dict[tuple[str, str], list[int]]:
    """By group and model, the workers that are to hold it."""
    found: dict[tuple[str, str], list[int]] = {}
    for one in status["plan"]["placements"]:
        found.setdefault((one["group"], one.get("model", "")), []).extend(one["numbers"])
    return {place: sorted(which) for place, which in found.items()}


def moving() -> tuple[DesiredPool, dict[str, Any]]:
    """A pool whose last worker of `b` was just told to hold the large model."""
    wants = wants_moves()
    return wants, written(decide(scene(wants), wants, NOW))


LOADING = held(p_b_1=ModelSeen("", False))
THERE = held(p_b_1=ModelSeen("", True))


def test_worker_moves_where_it_pays() -> None:
    """The plan says so at once, with the reason, and the worker counts no more until it is there."""
    wants = wants_moves()
    decision = decide(scene(wants), wants, NOW)
    status = written(decision)
    assert numbers(status) == {("a", ""): [0, 1], ("b", "few"): [0], ("b", ""): [1]}
    assert status["plan"]["reason"] == "ModelMoved"
    assert sum(one["workers"] for one in status["plan"]["placements"]) == 3
    move = status["move"]
    assert (move["worker"], move["fromModel"], move["toModel"]) == ("p-b-1", "few", "reference")
    assert "won back after" in move["reason"]
    assert {one["name"]: (one["workers"], one["ready"]) for one in status["models"]} == {
        "reference": (3, 2),
        "few": (1, 1),
    }
    assert events_of(decision)["Moving"] == f"p-b-1 gives up few for reference: {move['reason']}."


def test_pool_that_moves_nobody_stays() -> None:
    wants = two_models()
    decision = decide(scene(wants), wants, NOW)
    assert "move" not in written(decision)
    assert "Moving" not in events_of(decision)
    assert numbers(written(decision)) == {("a", ""): [0, 1], ("b", "few"): [0, 1]}


STAYING = {
    "without a gateway that could tell it": {"reports": ()},
    "while the demand is new": {"followed": FollowedDemand()},
    "without demand": {"rates_rps": {}},
}


@pytest.mark.parametrize("case", STAYING)
def test_nobody_moves(case: str) -> None:
    wants = wants_moves()
    assert "move" not in written(decide(scene(wants, **STAYING[case]), wants, NOW))


def test_last_ready_worker_of_a_model_stays() -> None:
    """Who asks for its model, and prompts that lose least by it, must be served."""
    wants = wants_moves()
    seen = scene(wants, workers=(worker(0), worker(1), few(0)))
    assert "move" not in written(decide(seen, wants, NOW))


def test_one_worker_moves_at_a_time() -> None:
    """However well another move would pay. Looks say nothing new meanwhile, so nothing is written."""
    wants = two_models(workerGroups=[GROUPS[0], {**GROUPS[1], "workers": 4}], mix=MOVES)
    pods = (worker(0), worker(1), *map(few, range(4)))
    more = {f"p_b_{number}": ModelSeen("few", True) for number in range(4)}
    seen = scene(wants, workers=pods, reports=(asked(EXACT_ONLY, **held(**more)),))
    before = written(decide(seen, wants, NOW))
    assert before["move"]["worker"] == "p-b-3"
    again = replace(seen, status=before, generation=1)
    assert not [one for one in decide(again, wants, later(20)).actions if isinstance(one, WriteStatus | Announce)]


def test_reload_is_told_and_is_no_fault() -> None:
    """Ready stays as it is while a worker loads because the plan wants it; Progressing says who and why."""
    wants, before = moving()
    pods = (worker(0), worker(1), few(0), few(1, ready=False))
    seen = scene(wants, status=before, workers=pods, reports=(asked(EXACT_ONLY, **LOADING),))
    status = written(decide(seen, wants, later(20)))
    assert condition(status, "Ready")["status"] == "True"
    told = condition(status, "Progressing")
    assert (told["status"], told["reason"]) == ("True", "Reloading")
    assert told["message"].startswith("p-b-1 gives up few for reference: ")


def test_worker_that_is_there_counts_and_what_it_took_is_kept() -> None:
    """From the order to the first gateway that says so. The next move reckons with it."""
    wants, before = moving()
    seen = scene(wants, status=before, reports=(asked(EXACT_ONLY, **THERE),))
    decision = decide(seen, wants, later(12.25))
    status = written(decision)
    assert "move" not in status
    assert {one["name"]: one.get("reloadMilliseconds") for one in status["models"]} == {
        "reference": 12_250,
        "few": None,
    }
    assert {one["name"]: one["ready"] for one in status["models"]} == {"reference": 3, "few": 1}
    assert sum(one["workers"] for one in status["plan"]["placements"]) == 4
    assert status["plan"]["reason"] == "PoolChanged"
    assert events_of(decision)["Moved"] == "p-b-1 serves reference, 12 s after it was told to."
    kept = written(decide(replace(seen, status=status, reports=(asked({}, **THERE),)), wants, later(90)))
    assert PoolStatus.model_validate(kept).models == PoolStatus.model_validate(status).models


@pytest.mark.parametrize(
    "told",
    [held(), LOADING, {}, held(p_b_1=ModelSeen("few", False))],
    ids=["not begun", "loading", "unheard", "draining"],
)
def test_pod_that_is_ready_does_not_count_before_a_gateway_says_so(told: dict[str, ModelSeen]) -> None:
    """The kubelet's word comes late, and says nothing of models."""
    wants, before = moving()
    seen = scene(wants, status=before, reports=(asked(EXACT_ONLY, **told),))
    assert not [one for one in decide(seen, wants, later(5)).actions if isinstance(one, WriteStatus)]


@pytest.mark.parametrize("told", [(LOADING, THERE), (THERE, LOADING)], ids=["late first", "late last"])
def test_gateway_that_already_hears_a_worker_is_believed(told: tuple[dict[str, ModelSeen], ...]) -> None:
    """Gateways ask at their own times, so one may still speak of the load that another has seen end."""
    wants, before = moving()
    seen = scene(wants, status=before, reports=tuple(asked(EXACT_ONLY, **one) for one in told))
    assert "Moved" in events_of(decide(seen, wants, later(12)))


def test_restarted_operator_goes_on_with_the_move() -> None:
    """It has the status, and has followed no demand yet."""
    wants, before = moving()
    seen = scene(wants, status=before, followed=FollowedDemand(), reports=(asked(EXACT_ONLY, **THERE),))
    assert {
        one["name"]: one.get("reloadMilliseconds") for one in written(decide(seen, wants, later(30)))["models"]
    } == {
        "reference": 30_000,
        "few": None,
    }


def test_worker_that_never_gets_there_goes_back() -> None:
    """And what it took counts, so the same move is not made again at once."""
    wants, before = moving()
    late_s = max(LEAST_LATE_S, LATE_AFTER * FIRST_RELOAD_S)
    seen = scene(wants, status=before, reports=(asked(EXACT_ONLY, **LOADING),))
    assert not [one for one in decide(seen, wants, later(late_s - 1)).actions if isinstance(one, WriteStatus)]
    decision = decide(seen, wants, later(late_s))
    status = written(decision)
    assert numbers(status) == {("a", ""): [0, 1], ("b", "few"): [0, 1]}
    assert "move" not in status
    assert events_of(decision)["MoveFailed"].endswith("read its log (kubectl logs p-b-1).")
    again = scene(wants, status=status, followed=replace(followed(EXACT_ONLY), at_s=later(late_s).unix_s))
    assert "move" not in (written_or(decide(again, wants, later(late_s + 20)), status))


def written_or(decision: Decision, before: dict[str, Any]) -> dict[str, Any]:
    return next((one.status for one in decision.actions if isinstance(one, WriteStatus)), before)


def test_unmeasured_model_is_as_slow_on_a_device_as_what_was_measured_there() -> None:
    """A worker that would hold the large model for the first time is ten times slower than the profile's device: it
    takes longer than the SLO for an exact image, so it stays."""
    wants = wants_moves()
    slow = {("b", "few"): MeasuredProfile((10 * FEW_STEP_S,), 0.01)}
    for measured, moves in ((slow, False), ({("b", "few"): MeasuredProfile((FEW_STEP_S,), 0.01)}, True)):
        report = replace(asked(EXACT_ONLY, **held()), measured=measured)
        assert ("move" in written(decide(scene(wants, reports=(report,)), wants, NOW))) is moves


def test_model_that_only_gateways_know_is_left_aside() -> None:
    """Of a group that was removed a moment ago."""
    wants = wants_moves()
    report = replace(asked(EXACT_ONLY, **held()), measured={("b", "gone"): MeasuredProfile((0.1,), 0.01)})
    assert "move" in written(decide(scene(wants, reports=(report,)), wants, NOW))


def test_pod_that_starts_anew_holds_its_groups_model_until_it_is_told_again() -> None:
    """It moved long ago. Its pod was replaced, is ready, and a gateway says that it holds what it began with."""
    wants, before = moving()
    there = written(decide(scene(wants, status=before, reports=(asked(EXACT_ONLY, **THERE),)), wants, later(12)))
    seen = scene(wants, status=there, reports=(asked(EXACT_ONLY, **held()),))
    status = written(decide(seen, wants, later(200)))
    assert numbers(status)["b", ""] == [1], "the plan still wants it there"
    assert condition(status, "Ready")["message"].startswith("Started anew with the model of their group: p-b-1.")
    assert {one["name"]: one["ready"] for one in status["models"]} == {"reference": 2, "few": 1}


CHANGES = {
    "moves are off": {"mix": {}},
    "the group has lost that worker": {"mix": MOVES, "workerGroups": [GROUPS[0], {**GROUPS[1], "workers": 1}]},
}


@pytest.mark.parametrize("case", CHANGES)
def test_move_that_the_spec_no_longer_asks_for_ends(case: str) -> None:
    _, before = moving()
    wants = two_models(**CHANGES[case])
    seen = scene(wants, rates_rps={}, status=before, generation=2)
    status = written(decide(seen, wants, later(5)))
    assert "move" not in status
    assert numbers(status)["b", "few"][0] == 0
    assert ("b", "") not in numbers(status)
