"""A pool whose groups hold several models: what it asks for, how it is planned, and what its status and events say."""

import json
from typing import Any

import pytest
import yaml

from model_scenes import FEW, GROUPS, asked, few, look_at, profile_of, section, two_models
from operator_world import pool_document
from pool_scenes import NOW, REF, look, report, wanted, worker
from t2i_api.names import MAX_LABEL, level_value
from t2i_api.parse import parse_pool
from t2i_operator.decide.reconcile import decide
from t2i_operator.decide.types import (
    Announce,
    Decision,
    DemandReport,
    DesiredPool,
    LabelPod,
    MeasuredProfile,
    Observed,
    Problem,
    WriteStatus,
)
from t2i_operator.desired import read_desired
from t2i_operator.manifests import Images
from t2i_operator.manifests.child import Manifest
from t2i_operator.manifests.pod import MODELS_FOLDER
from t2i_policy.level import Level

IMAGES = Images("gateway:1", "worker:1")
EXACT, OF_FEW, FEWER = Level(0, 12), Level(0, 4, model="few"), Level(0, 2, model="few")


def status_of(seen: Observed, wants: DesiredPool) -> dict[str, Any]:
    return next(one.status for one in decide(seen, wants, NOW).actions if isinstance(one, WriteStatus))


def conditions_of(seen: Observed, wants: DesiredPool) -> dict[str, Any]:
    return {one["type"]: one for one in status_of(seen, wants)["conditions"]}


def events_of(decision: Decision) -> dict[str, str]:
    return {one.reason: one.message for one in decision.actions if isinstance(one, Announce)}


def child(wants: DesiredPool, kind: str, name: str) -> Manifest:
    return next(one for one in wants.children if (one["kind"], one["metadata"]["name"]) == (kind, name))


def template(wants: DesiredPool, group: str) -> Manifest:
    found: Manifest = child(wants, "StatefulSet", f"p-{group}")["spec"]["template"]
    return found


def places(wants: DesiredPool, group: str) -> dict[str, str | None]:
    """By place in the container, the claim that is mounted there."""
    pod = template(wants, group)["spec"]
    volumes = {one["name"]: one for one in pod["volumes"]}
    return {
        one["mountPath"].replace(MODELS_FOLDER, "MODELS"): volumes[one["name"]]
        .get("persistentVolumeClaim", {})
        .get("claimName")
        for one in pod["containers"][0]["volumeMounts"]
        if one["name"].startswith("models")
    }


# What it asks for.


def test_processes_read_models_of_groups_and_levels_of_all_models() -> None:
    """Workers find their model by their group, gateways the levels."""
    wants = two_models(levels=[])
    spec = parse_pool(child(wants, "ConfigMap", "p-config")["data"]["pool.yaml"]).spec
    assert spec.group_models == {"a": "", "b": "few"}
    assert spec.model_called("few").source == FEW["source"]
    assert spec.ladder.levels == wants.spec.ladder.levels
    assert {OF_FEW, FEWER} <= {*spec.ladder.levels}


def test_ladder_of_many_measured_levels_still_fits_into_a_document() -> None:
    """The profile may have measured as many of each model as a document holds of all."""
    bands = [
        {**band, "numInferenceSteps": steps, "meanLoss": 1 / steps}
        for band in section()["losses"][:1]
        for steps in range(1, 41)
    ]
    model = {**FEW, "numInferenceSteps": 40}
    wants = two_models(
        profile_of(section(baseSteps=40, losses=bands)),
        levels=[],
        workerGroups=[GROUPS[0], {**GROUPS[1], "model": model}],
    )
    spec = parse_pool(child(wants, "ConfigMap", "p-config")["data"]["pool.yaml"]).spec
    assert len(spec.levels) <= 32
    assert {EXACT, Level(0, 40, model="few"), Level(0, 1, model="few")} <= {*spec.ladder.levels}


def test_workers_get_folders_of_their_own_model_alone() -> None:
    model = {**pool_document()["spec"]["model"], "source": "pvc://large/sdxl"}
    groups = [GROUPS[0], {**GROUPS[1], "model": {**FEW, "source": "pvc://small/turbo", "adapters": [LORA]}}]
    wants = two_models(model=model, workerGroups=groups)
    assert places(wants, "a") == {"MODELS/large": "large"}
    assert places(wants, "b") == {"MODELS/small": "small", "MODELS/loras": "loras"}


LORA = {"name": "pixel", "source": "pvc://loras/pixel"}


def test_workers_that_move_get_folders_of_all_models() -> None:
    """And know that they may, while the mix itself arrives as a plan."""
    model = {**pool_document()["spec"]["model"], "source": "pvc://large/sdxl"}
    groups = [GROUPS[0], {**GROUPS[1], "model": {**FEW, "source": "hf://acme/turbo", "adapters": [LORA]}}]
    wants = two_models(model=model, workerGroups=groups, mix={"moves": "Reload"})
    everywhere = {"MODELS/large": "large", "MODELS": None, "MODELS/loras": "loras"}
    assert places(wants, "a") == places(wants, "b") == everywhere
    document = yaml.safe_load(child(wants, "ConfigMap", "p-config")["data"]["pool.yaml"])
    assert document["spec"]["mix"] == {"moves": "Reload"}


def test_another_model_in_the_pool_restarts_those_that_must_know_it() -> None:
    """Gateways read models at their start, and workers that move too; others hold what they hold."""
    more = [*GROUPS, {"name": "c", "workers": 1, "model": {**FEW, "name": "fewer"}}]
    profile = profile_of(section(), {**json.loads(json.dumps(section()).replace('"few"', '"fewer"'))})
    for moves, restarted in (("None", False), ("Reload", True)):
        before, after = (
            two_models(profile, workerGroups=list(groups), mix={"moves": moves}) for groups in (GROUPS, more)
        )
        gateways = [child(one, "Deployment", "p-gateway")["spec"]["template"] for one in (before, after)]
        assert gateways[0] != gateways[1]
        assert (template(before, "a") != template(after, "a")) is restarted


def test_whether_workers_move_restarts_all_that_read_it_at_their_start() -> None:
    """A gateway that gives no orders, or a worker that takes none, would hold up the first move for ever."""
    before, after = two_models(), two_models(mix={"moves": "Reload"})
    assert template(before, "a") != template(after, "a")
    gateways = [child(one, "Deployment", "p-gateway")["spec"]["template"] for one in (before, after)]
    assert gateways[0] != gateways[1]


def test_workers_reach_the_hub_if_any_model_is_there() -> None:
    groups = [GROUPS[0], {**GROUPS[1], "model": {**FEW, "source": "hf://acme/turbo"}}]
    egress = [
        child(two_models(**spec), "NetworkPolicy", "p-workers")["spec"]["egress"]
        for spec in ({}, {"workerGroups": groups})
    ]
    hub = {"ports": [{"port": 443, "protocol": "TCP"}]}
    assert [hub in one for one in egress] == [False, True]


def test_pool_of_one_model_is_asked_for_as_before() -> None:
    """No field, annotation or volume more: pods of a pool that changes nothing must not restart in an upgrade."""
    wants = wanted()
    document = yaml.safe_load(child(wants, "ConfigMap", "p-config")["data"]["pool.yaml"])["spec"]
    assert "mix" not in document
    assert {*document["workerGroups"][0]} == {"engine", "name", "profile", "workers"}
    assert all({*level} <= {"skippedSteps", "numInferenceSteps"} for level in document["levels"])
    assert "annotations" not in template(wants, "a")["metadata"]


PROBLEMS = {
    "no section": (
        profile_of(),
        "ModelNotMeasured",
        "no section for model 'few'",
        "t2ictl profile --beside few=SAMPLES",
    ),
    "a section of another schedule": (
        profile_of(section(baseSteps=8)),
        "ModelNotMeasured",
        "'few' was measured at 8 steps, its numInferenceSteps in workerGroups is 4",
        "or set numInferenceSteps to 8",
    ),
    "a section of another guidance": (
        profile_of(section(guidanceScale=2.0)),
        "ModelNotMeasured",
        "'few' was measured at guidance scale 2, its guidanceScalePercent in workerGroups is 100",
        "or set guidanceScalePercent to 200",
    ),
}


@pytest.mark.parametrize("case", PROBLEMS)
def test_profile_without_the_model_is_told_with_the_next_step(case: str) -> None:
    """And nothing that runs is touched."""
    profile, reason, *said = PROBLEMS[case]
    found = read_desired(REF, pool_document(workerGroups=list(GROUPS)), profile, IMAGES)
    assert isinstance(found, Problem)
    decision = decide(look(wanted()), found, NOW)
    assert decision.children == ()
    (status,) = (one.status for one in decision.actions if isinstance(one, WriteStatus))
    ready = next(one for one in status["conditions"] if one["type"] == "Ready")
    assert (ready["status"], ready["reason"]) == ("False", reason)
    assert all(text in ready["message"] for text in said)


# How it is planned.


def test_each_group_is_planned_at_levels_of_its_model_by_its_section() -> None:
    """Two workers of 12 steps of 40 ms make 4 images a second; the others' 4 steps of 20 ms bear what is more."""
    wants = two_models()
    status = status_of(look_at(wants, reports=(asked({"none": 10.0}),)), wants)
    placed = {(one["group"], one.get("model")) for one in status["plan"]["placements"]}
    assert placed == {("a", None), ("b", "few")}
    assert status["plan"]["outcome"] == "AllServed"
    (row,) = [one for one in status["plan"]["shifts"] if one.get("model") == "few"]
    assert row["sharePerMille"] > 500
    assert status["mix"] == "2x0 2xfew:0/4"


def test_what_workers_measured_of_their_model_counts_before_the_profile() -> None:
    """Steps of the light model that take as long as those of the large one leave too little for all."""
    wants = two_models()
    slow = {("b", "few"): MeasuredProfile((0.4,), 0.01), ("b", ""): MeasuredProfile((0.001,), 0.0)}
    by_profile = asked({"none": 20.0})
    measured = DemandReport("g", by_profile.rates_rps, measured=slow)
    shed = [status_of(look_at(wants, reports=(one,)), wants)["plan"]["shedMilliRps"] for one in (by_profile, measured)]
    assert shed[0] == 0 < shed[1]


def test_fixed_mix_puts_workers_at_levels_of_what_they_hold() -> None:
    """Whatever the order of its entries."""
    levels = [
        {},
        {"numInferenceSteps": 6},
        {"model": "few", "numInferenceSteps": 4},
        {"model": "few", "numInferenceSteps": 2},
    ]
    workers = [
        {"model": "few", "numInferenceSteps": 2, "workers": 1},
        {"workers": 1},
        {"model": "few", "numInferenceSteps": 4, "workers": 1},
        {"numInferenceSteps": 6, "workers": 1},
    ]
    wants = two_models(levels=levels, mix={"mode": "Fixed", "workers": workers})
    status = status_of(look_at(wants, reports=(asked({"none": 1.0}),)), wants)
    placed = {(one["group"], one["numInferenceSteps"], one.get("model")) for one in status["plan"]["placements"]}
    assert placed == {("a", 12, None), ("a", 6, None), ("b", 4, "few"), ("b", 2, "few")}


# What is told.


def test_status_tells_models_and_groups_apart() -> None:
    wants = two_models()
    status = status_of(look_at(wants, workers=(worker(0), few(0), few(1, ready=False))), wants)
    assert status["models"] == [
        {"name": "reference", "workers": 2, "ready": 1},
        {"name": "few", "workers": 2, "ready": 1},
    ]
    assert status["groups"] == [
        {"name": "a", "model": "reference", "workers": 2, "ready": 1},
        {"name": "b", "model": "few", "workers": 2, "ready": 1},
    ]
    assert {one.get("model"): one["workers"] for one in status["levels"] if one["workers"]} == {None: 2, "few": 2}


def test_pods_are_labelled_with_the_model_of_their_level() -> None:
    wants = two_models()
    labels = {one.name: one.level for one in decide(look_at(wants), wants, NOW).actions if isinstance(one, LabelPod)}
    assert labels == {"p-a-0": "0-of-12", "p-a-1": "0-of-12", "p-b-0": "few.0-of-4", "p-b-1": "few.0-of-4"}


def test_label_of_a_level_has_room_for_any_name() -> None:
    value = level_value(Level(0, 1000, guided_steps=900, solver="dpm++-2m", model="m" * 63))
    assert len(value) == MAX_LABEL
    assert value.endswith("m.0-of-1000.g900.dpmpp-2m")


def test_model_that_no_worker_serves_is_named() -> None:
    """Requests are served, yet not as the pool says."""
    wants = two_models()
    told = conditions_of(look_at(wants, workers=(worker(0), worker(1), few(0, ready=False))), wants)
    assert (told["Ready"]["status"], told["Ready"]["reason"]) == ("False", "ModelNotServed")
    assert told["Ready"]["message"].startswith("No worker serves few: ")
    assert "By group: a 2 of 2, b 0 of 2." in told["Ready"]["message"]
    assert (told["Available"]["status"], told["Available"]["message"]) == (
        "True",
        "Requests are served, but none by few.",
    )


def test_loss_of_the_last_worker_of_a_model_is_an_event_once() -> None:
    """A pool that starts has not lost anything."""
    wants, lacking = two_models(), (worker(0), worker(1), few(0, ready=False))
    assert "ModelNotServed" not in events_of(decide(look_at(wants, workers=lacking), wants, NOW))
    served = status_of(look_at(wants), wants)
    first = decide(look_at(wants, status=served, workers=lacking), wants, NOW)
    assert events_of(first)["ModelNotServed"] == "No worker serves few any more."
    (lost,) = (one.status for one in first.actions if isinstance(one, WriteStatus))
    assert "ModelNotServed" not in events_of(decide(look_at(wants, status=lost, workers=lacking), wants, NOW))


def test_pool_of_one_model_is_told_as_before() -> None:
    """Neither models nor groups nor a move, as long as there is one of each."""
    status = status_of(look(reports=(report(1.0),)), wanted())
    assert not {"models", "groups", "move"} & {*status}
    levels = {key for one in (*status["levels"], *status["plan"]["placements"]) for key in one}
    assert "model" not in levels


def test_groups_of_one_model_are_told_apart_too() -> None:
    """Devices differ, and one of them may be what is missing."""
    groups = [{"name": "a", "workers": 2}, {"name": "h100", "workers": 1}]
    wants = two_models(workerGroups=groups)
    told = conditions_of(look_at(wants, workers=(worker(0), worker(1))), wants)["Ready"]
    assert (told["reason"], "By group: a 2 of 2, h100 0 of 1." in told["message"]) == ("WorkersNotReady", True)


def test_model_that_the_floor_forbids_is_told() -> None:
    """Its workers run for nobody, and waiting does not mend it."""
    wants = two_models(slo={"minQualityPercent": 99})
    degraded = conditions_of(look_at(wants), wants)["Degraded"]
    assert (degraded["status"], degraded["reason"]) == ("True", "ModelBelowFloor")
    assert (
        "by model few: it is promised 90.0 % of exact quality at best, slo.minQualityPercent is 99"
        in (degraded["message"])
    )
    kept = two_models(slo={"minQualityPercent": 85})
    assert conditions_of(look_at(kept), kept)["Degraded"]["reason"] == "AsExpected"
