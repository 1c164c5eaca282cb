"""Audits out of one look, as tables: the condition QualityKept, the figures, and the corrections that are kept."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from operator_world import pool_document
from pool_scenes import NOW, REF, look, problem, there, wanted
from t2i_api.parse import read_pool
from t2i_operator.clock import Instant
from t2i_operator.decide.children import key_of
from t2i_operator.decide.corrections import (
    EVERY_S,
    HISTORY_LENGTH,
    CorrectionsRecord,
    correct,
    next_record,
    read_record,
    render_record,
)
from t2i_operator.decide.reconcile import decide
from t2i_operator.decide.types import (
    Announce,
    Apply,
    AuditedLevel,
    AuditReport,
    ChildKey,
    ChildSeen,
    Decision,
    Delete,
    DesiredPool,
    HeardAudits,
    Observed,
    PodSeen,
    Trouble,
    TroubleKind,
    WriteStatus,
)
from t2i_operator.manifests.child import Manifest
from t2i_policy.corrections import Correction, Corrections
from t2i_policy.judge_record import JudgeRecord
from t2i_policy.kept_promise import AuditedQuality
from t2i_policy.level import Level

TOLD = {"judge": "scenes"}
CORRECTED = {"judge": "scenes", "recalibrate": True}
READY = PodSeen("p-auditor-x", "uid-x", True)
ENOUGH = AuditedQuality(40, 0.97, 0.965, 0.005)
SKIP = Level(6, 12)


def corrections(revision: int, added: float = 0.05, **parts: Any) -> Corrections:
    """Of the level that skips, in all its bands."""
    profile = wanted(quality=TOLD).profile
    bands = tuple(Correction(SKIP, band.similarity_min, added) for band in profile.bands[SKIP])
    usual = {"profile": profile.losses_digest, "judge": "scenes 1", "reason": f"revision {revision}"}
    return Corrections(revision, bands, **{**usual, **parts})


def report(wants: DesiredPool, quality: AuditedQuality = ENOUGH, **parts: Any) -> AuditReport:
    """What the pool's own auditor says."""
    levels = (AuditedLevel(SKIP, quality.num_audits, 1 - quality.promised, 1 - quality.measured),)
    usual = {"corrections": Corrections(), "judge": "scenes 1", "trouble": "", "basis": wants.audit_basis}
    return AuditReport(quality, levels, **{**usual, **parts})


def audited(wants: DesiredPool, heard: AuditReport | None, **facts: Any) -> Observed:
    """A look at a pool that is well, and what its auditor said."""
    return look(wants, **{"auditors": (READY,), "audits": HeardAudits(heard), **facts})


def status_of(decision: Decision) -> dict[str, Any]:
    """The status that is written."""
    return next(one.status for one in decision.actions if isinstance(one, WriteStatus))


def quality_kept(seen: Observed, wants: DesiredPool) -> Mapping[str, str]:
    """The condition."""
    conditions = status_of(decide(seen, wants, NOW))["conditions"]
    return next(one for one in conditions if one["type"] == "QualityKept")


def test_pool_without_audits_says_nothing_of_them() -> None:
    """Neither a condition nor a figure."""
    status = status_of(decide(look(), wanted(), NOW))
    assert "QualityKept" not in {one["type"] for one in status["conditions"]}
    assert not {"audits", "measuredQualityPercent"} & status.keys()


FAILED = PodSeen("p-auditor-x", "uid-x", False, Trouble(TroubleKind.LOAD_FAILED, "p-auditor-x: no such weights"))
TELLING: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "few audits": ({"quality": AuditedQuality(3, 0.97, 0.5, 0.2)}, "Unknown", "TooFewAudits", "3 of 30 audits"),
    "as promised": ({}, "True", "PromiseKept", "96.5% ± 1.0 measured in 40 audits, 97.0% promised"),
    "far below": ({"quality": AuditedQuality(40, 0.97, 0.9, 0.01)}, "False", "BelowPromise", "recalibrate"),
    "a judge that fails": ({"trouble": "the judge gave no score"}, "Unknown", "JudgeFailed", "gave no score: see"),
}


@pytest.mark.parametrize(("parts", "status", "reason", "words"), TELLING.values(), ids=TELLING.keys())
def test_what_the_auditor_says_is_told(parts: dict[str, Any], status: str, reason: str, words: str) -> None:
    """With its figures, and with the next step where there is one."""
    wants = wanted(quality=TOLD)
    found = quality_kept(audited(wants, report(wants, **parts)), wants)
    assert (found["status"], found["reason"]) == (status, reason)
    assert words in found["message"]


AWAY: dict[str, tuple[dict[str, Any], str]] = {
    "no pod yet": ({"auditors": ()}, "starts, or loads its judge"),
    "a pod that starts": ({"auditors": (replace(READY, ready=False),)}, "starts, or loads its judge"),
    "a pod that cannot start": ({"auditors": (FAILED,)}, "no such weights"),
    "a quota": (
        {"auditors": (), "starved_auditor": (Trouble(TroubleKind.NO_CAPACITY, "p-auditor: exceeded quota"),)},
        "exceeded quota",
    ),
    "not asked yet": ({}, "not been asked"),
    "silence": ({"audits": HeardAudits(None, silent=True)}, "does not answer the operator"),
}


@pytest.mark.parametrize(("facts", "words"), AWAY.values(), ids=AWAY.keys())
def test_auditor_that_is_away_is_told_and_holds_nobody_up(facts: dict[str, Any], words: str) -> None:
    """The pool serves as before, so it is ready and not degraded."""
    wants = wanted(quality=TOLD)
    seen = audited(wants, None, **facts)
    found = quality_kept(seen, wants)
    assert (found["status"], found["reason"]) == ("Unknown", "AuditorNotReady")
    assert words in found["message"]
    others = {one["type"]: one["status"] for one in status_of(decide(seen, wants, NOW))["conditions"]}
    assert (others["Ready"], others["Degraded"], others["Available"]) == ("True", "False", "True")


def test_other_judge_than_the_profiles_is_told_before_anything_is_compared() -> None:
    """Losses of two judges do not compare; whose the profile is, only the operator can read."""
    wants = wanted(quality={"judge": "pickscore"}, profileRef={"name": "measured"})
    measured = replace(wants, profile=replace(wants.profile, judge=JudgeRecord("hps", "hf://acme/hps", "d")))
    found = quality_kept(audited(measured, report(measured)), measured)
    assert (found["status"], found["reason"]) == ("Unknown", "OtherJudge")
    assert "pickscore" in found["message"]
    assert "hps" in found["message"]


def test_figures_are_whole_percents_by_level() -> None:
    """What people read; the mean of all only where there are enough audits."""
    wants = wanted(quality=TOLD)
    status = status_of(decide(audited(wants, report(wants)), wants, NOW))
    assert status["measuredQualityPercent"] == 96
    told = status["audits"]
    assert (told["count"], told["promisedPercent"], told["measuredPercent"], told["marginPerMille"]) == (40, 97, 96, 10)
    (level,) = told["levels"]
    assert (level["skippedSteps"], level["count"], level["measuredPercent"]) == (6, 40, 96)
    few = report(wants, AuditedQuality(3, 0.97, 0.5, 0.2))
    assert "measuredQualityPercent" not in status_of(decide(audited(wants, few), wants, NOW))


def test_operator_that_begins_leaves_what_was_said() -> None:
    """It has asked nobody yet, so it writes nothing."""
    wants = wanted(quality=TOLD)
    status = status_of(decide(audited(wants, report(wants)), wants, NOW))
    again = decide(audited(wants, None, status=status), wants, Instant(NOW.unix_s + 5))
    assert [one for one in again.actions if isinstance(one, WriteStatus)] == []


def test_figures_stay_while_the_auditor_is_away() -> None:
    """What was measured was measured; the condition alone says that nobody measures now."""
    wants = wanted(quality=TOLD)
    status = status_of(decide(audited(wants, report(wants)), wants, NOW))
    away = status_of(decide(audited(wants, None, auditors=(), status=status), wants, NOW))
    assert away["audits"] == status["audits"]
    assert away["measuredQualityPercent"] == 96


def test_report_about_a_spec_of_before_does_not_count() -> None:
    """The auditor with the former judge may answer until it is replaced."""
    wants = wanted(quality=TOLD)
    status = status_of(decide(audited(wants, report(wants)), wants, NOW))
    found = quality_kept(audited(wants, report(wants, basis="of before"), status=status), wants)
    assert (found["status"], found["reason"]) == ("Unknown", "AuditorNotReady")
    assert "being replaced" in found["message"]


def test_broken_promise_is_an_event_once() -> None:
    """Somebody should look; not at every look of ours."""
    wants = wanted(quality=TOLD)
    broken = report(wants, AuditedQuality(40, 0.97, 0.9, 0.01))
    first = decide(audited(wants, broken), wants, NOW)
    assert "BelowPromise" in {one.reason for one in first.actions if isinstance(one, Announce)}
    more = replace(broken, quality=AuditedQuality(41, 0.97, 0.9, 0.01))
    second = decide(audited(wants, more, status=status_of(first)), wants, NOW)
    assert "BelowPromise" not in {one.reason for one in second.actions if isinstance(one, Announce)}


def test_spec_that_cannot_be_carried_out_knows_nothing_of_quality() -> None:
    """What was told of another spec is not told of this one."""
    wants = wanted(quality=TOLD)
    status = status_of(decide(audited(wants, report(wants)), wants, NOW))
    broken = problem(quality={"judge": "scenes", "template": {"env": {"A": "1"}}})
    after = status_of(decide(audited(wants, None, status=status), broken, NOW))
    (found,) = (one for one in after["conditions"] if one["type"] == "QualityKept")
    assert (found["status"], found["reason"]) == ("Unknown", "SpecNotInForce")


def config_maps(decision: Decision) -> list[Manifest]:
    """Those that are written for the corrections."""
    applied = [one.manifest for one in decision.actions if isinstance(one, Apply)]
    return [one for one in applied if one["metadata"]["name"] == "p-audits"]


def with_record(wants: DesiredPool, record: CorrectionsRecord) -> dict[ChildKey, ChildSeen]:
    """The children, and the corrections that are kept."""
    (manifest,) = render_record(REF, record)
    live = {**manifest, "metadata": {**manifest["metadata"], "uid": "uid-r"}}
    return {**there(wants), key_of(manifest): ChildSeen(live, "uid-r", REF.uid)}


def kept(wants: DesiredPool, revision: int = 1, added: float = 0.05) -> CorrectionsRecord:
    """What the operator makes of the auditor's first corrections."""
    return next_record(CorrectionsRecord(), report(wants, corrections=corrections(revision, added)), NOW).record


def test_corrections_are_kept_with_their_history() -> None:
    """The auditor begins with the one, people read the other."""
    wants = wanted(quality=CORRECTED)
    (written,) = config_maps(decide(audited(wants, report(wants, corrections=corrections(3))), wants, NOW))
    record = read_record("p", {key_of(written): ChildSeen(written, "u", REF.uid)})
    assert record.corrections == corrections(3)
    assert [(one.revision, one.reason, one.at) for one in record.history] == [(3, "revision 3", NOW.text)]


def test_nothing_is_kept_of_an_auditor_that_corrected_nothing() -> None:
    """The auditor can do without a file."""
    wants = wanted(quality=CORRECTED)
    assert config_maps(decide(audited(wants, report(wants)), wants, NOW)) == []


def test_what_is_kept_is_not_written_again() -> None:
    """Whatever is counted meanwhile, and by an operator that has heard nothing too."""
    wants = wanted(quality=CORRECTED)
    record = kept(wants)
    for heard in (report(wants, AuditedQuality(99, 0.9, 0.9, 0.1), corrections=corrections(1)), None):
        decision = decide(audited(wants, heard, children=with_record(wants, record)), wants, Instant(NOW.unix_s + 1e4))
        assert decision.children == ()


def test_newer_corrections_wait_for_their_minute() -> None:
    """Then they are written; until then the pool is looked at again by itself."""
    wants = wanted(quality=CORRECTED)
    newer = report(wants, corrections=corrections(2, 0.1))
    seen = audited(wants, newer, children=with_record(wants, kept(wants)))
    early = decide(seen, wants, Instant(NOW.unix_s + EVERY_S - 1))
    assert config_maps(early) == []
    assert not early.settled
    (written,) = config_maps(decide(seen, wants, Instant(NOW.unix_s + EVERY_S)))
    record = read_record("p", {key_of(written): ChildSeen(written, "u", REF.uid)})
    assert [one.revision for one in record.history] == [2, 1]


ARRIVALS = {
    "an auditor that began without the file": (corrections(1), False),
    "the same again": (corrections(5), False),
    "newer ones": (corrections(6), True),
    "those of another profile": (corrections(1, profile="another"), True),
    "those of another judge": (corrections(1, judge="pickscore ab"), True),
    "none": (Corrections(), False),
    "an auditor that has no judge yet": (corrections(5, judge=""), False),
}


@pytest.mark.parametrize(("found", "replaces"), ARRIVALS.values(), ids=ARRIVALS.keys())
def test_what_replaces_what_is_kept(found: Corrections, replaces: bool) -> None:
    """A lower revision is of an auditor that is about to begin with what is kept."""
    wants = wanted(quality=CORRECTED)
    later = Instant(NOW.unix_s + EVERY_S)
    decision = next_record(kept(wants, 5), report(wants, corrections=found), later)
    assert (decision.record.corrections == found and len(decision.record.history) == 2) is replaces
    assert not decision.waits


def test_history_is_bounded() -> None:
    """A ConfigMap has a limit, and so has interest in the past."""
    wants = wanted(quality=CORRECTED)
    record = CorrectionsRecord()
    for number in range(1, 2 * HISTORY_LENGTH):
        now = Instant(NOW.unix_s + number * EVERY_S)
        record = next_record(record, report(wants, corrections=corrections(number)), now).record
    assert [one.revision for one in record.history] == [*range(2 * HISTORY_LENGTH - 1, HISTORY_LENGTH - 1, -1)]


@pytest.mark.parametrize("data", [{}, {"corrections.json": "{"}, {"corrections.json": "{}", "history.json": "[]"}])
def test_corrections_that_cannot_be_read_count_as_none(data: dict[str, str]) -> None:
    """Somebody edited them; the auditor begins anew as well, and what it makes is kept."""
    manifest = {"kind": "ConfigMap", "metadata": {"name": "p-audits"}, "data": data}
    assert read_record("p", {("ConfigMap", "p-audits"): ChildSeen(manifest, "u", REF.uid)}) == CorrectionsRecord()


def test_corrections_go_with_the_audits() -> None:
    """What belongs to nobody is deleted, as every child."""
    wants = wanted()
    seen = look(wants, children=with_record(wants, kept(wanted(quality=CORRECTED))))
    assert [one.name for one in decide(seen, wants, NOW).actions if isinstance(one, Delete)] == ["p-audits"]


def test_plans_are_made_by_the_corrected_profile() -> None:
    """As gateways decide; the levels stay, so that none of them restarts."""
    wants = wanted(quality=CORRECTED)
    corrected = correct(wants, kept(wants, added=0.3))
    before, after = (one.classes.losses["same-image"] for one in (wants, corrected))
    assert before.keys() <= {*wants.spec.ladder.levels}
    assert corrected.profile.expected_loss(SKIP, 0.9) == pytest.approx(
        min(1.0, (wants.profile.expected_loss(SKIP, 0.9) or 0.0) + 0.3)
    )
    assert corrected.spec.ladder == wants.spec.ladder
    assert after.keys() <= before.keys()


LEFT_ALONE = {
    "a pool that is told, no more": (TOLD, {}),
    "a profile that was measured anew": (CORRECTED, {"profile": "another"}),
}


@pytest.mark.parametrize(("quality", "parts"), LEFT_ALONE.values(), ids=LEFT_ALONE.keys())
def test_profile_is_corrected_only_where_it_should_be(quality: dict[str, Any], parts: dict[str, Any]) -> None:
    """Corrections belong to the losses that they were measured against."""
    wants = wanted(quality=quality)
    heard = report(wants, corrections=corrections(1, **parts))
    record = next_record(CorrectionsRecord(), heard, NOW).record
    assert correct(wants, record) is wants


def test_corrections_bring_a_new_plan_once() -> None:
    """The plan was made by other losses; the next look finds it made by these."""
    wants = wanted(quality=CORRECTED)
    first = status_of(decide(audited(wants, report(wants)), wants, NOW))
    heard = report(wants, corrections=corrections(1))
    written = with_record(wants, next_record(CorrectionsRecord(), heard, NOW).record)
    seen = audited(wants, heard, status=first, children=written)
    second = status_of(decide(seen, wants, NOW))  # in the very second in which the first plan was made
    assert second["plan"]["reason"] == "Recalibrated"
    assert second["plan"]["revision"] == first["plan"]["revision"] + 1
    third = decide(replace(seen, status=second), wants, Instant(NOW.unix_s + 5))
    assert not [one for one in third.actions if isinstance(one, WriteStatus | Apply)]


def test_plan_by_corrections_goes_when_they_do() -> None:
    """The owner sets recalibrate to false: the profile's own losses count again."""
    wants = wanted(quality=CORRECTED)
    record = kept(wants)
    status = status_of(decide(audited(wants, None, children=with_record(wants, record)), wants, NOW))
    assert status["plan"]["correctionsRevision"] == 1
    told = wanted(quality=TOLD)
    after = status_of(decide(audited(told, None, children=with_record(told, record), status=status), told, NOW))
    assert (after["plan"]["reason"], "correctionsRevision" in after["plan"]) == ("Recalibrated", False)


def test_recalibration_is_announced() -> None:
    """Levels are chosen by other losses from now on: people should find out when and why."""
    wants = wanted(quality=CORRECTED)
    decision = decide(audited(wants, report(wants, corrections=corrections(1))), wants, NOW)
    (told,) = (one for one in decision.actions if isinstance(one, Announce) and one.reason == "Recalibrated")
    assert told.message == "revision 1"
    assert not told.warning


def test_spec_reads_what_it_says() -> None:
    """The judge's parts, as profile and network need them."""

    def audits(judge: str) -> Any:
        return read_pool(pool_document(quality={"judge": judge}, profileRef={"name": "m"})).spec.quality

    assert [audits(one).judge_kind for one in ("hps=hf://a/b", "lpips", "https://h/x=y")] == ["hps", "lpips", ""]
    assert [audits(one).judge_source for one in ("hps=hf://a/b", "lpips", "https://h/x=y")] == ["hf://a/b", "", ""]
    assert [audits(one).service_port for one in ("http://h", "https://h", "http://[::1]:81/x")] == [80, 443, 81]
