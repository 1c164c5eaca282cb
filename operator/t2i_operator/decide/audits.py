"""Audits in the status: whether the promised quality was served, and the figures that say so.

    OtherJudge         Unknown   the profile's losses are of another judge, so nothing can be compared
    AuditorNotReady    Unknown   the auditor starts, cannot start, or does not answer
    JudgeFailed        Unknown   the auditor runs, and its judge gives no scores
    TooFewAudits       Unknown   see `t2i_policy.kept_promise`, as the two below
    BelowPromise       False
    PromiseKept        True

While the auditor is away the figures stay as they were: what was measured was measured.
"""

from t2i_api.levels import coordinates
from t2i_api.status import AuditedLevelStatus, AuditsStatus
from t2i_operator.decide.conditions import NOT_IN_FORCE, Verdict
from t2i_operator.decide.types import AuditedLevel, AuditReport, DesiredPool, Observed
from t2i_policy.kept_promise import FEWEST_AUDITS, judge_promise

QUALITY_KEPT = "QualityKept"
OTHER_JUDGE = "OtherJudge"
NOT_READY = "AuditorNotReady"
JUDGE_FAILED = "JudgeFailed"
SILENT = "The auditor is ready and does not answer the operator: look at its log and at policies for its port control."
TOLD = "Set spec.quality.recalibrate, or measure the profile anew (t2ictl profile)."
CORRECTED = "The profile is being corrected; if this stays, measure it anew (t2ictl profile)."


def judge_quality(desired: DesiredPool, seen: Observed) -> Verdict | None:
    """The condition QualityKept; None where nothing is audited."""
    audits, measured_by = desired.spec.quality, desired.profile.judge
    if audits is None:
        return None
    if audits.judge_kind and measured_by is not None and measured_by.kind != audits.judge_kind:
        text = f"spec.quality.judge is {audits.judge_kind}, the profile was measured by {measured_by.kind}: set "
        return Verdict(None, OTHER_JUDGE, f"{text}the profile's judge, or measure with yours (t2ictl profile --judge).")
    report = seen.audits.of(desired.audit_basis)
    if not any(pod.ready for pod in seen.auditors):
        return Verdict(None, NOT_READY, _why_not_ready(seen, report))
    if seen.audits.silent:
        return Verdict(None, NOT_READY, SILENT)
    if report is None and seen.audits.report is not None:
        return Verdict(None, NOT_READY, "The auditor is being replaced by one for this spec and profile.")
    if report is None:
        return _as_before(seen) or Verdict(None, NOT_READY, "The auditor has not been asked yet.")
    if report.trouble:
        return Verdict(None, JUDGE_FAILED, f"{report.trouble}: see the log of the auditor and spec.quality.judge.")
    found = judge_promise(report.quality)
    advice = f" {CORRECTED if audits.recalibrate else TOLD}" if found.holds is False else ""
    return Verdict(found.holds, found.reason, f"{found.sentence}.{advice}")


def judge_unread_quality(seen: Observed) -> Verdict | None:
    """The same while the spec cannot be carried out: whether it audits is not known, so what was told is taken back."""
    return None if _as_before(seen) is None else NOT_IN_FORCE


def _why_not_ready(seen: Observed, report: AuditReport | None) -> str:
    troubles = [pod.trouble.message for pod in seen.auditors if pod.trouble is not None]
    troubles += [trouble.message for trouble in seen.starved_auditor]
    if report is not None and report.trouble:
        troubles.append(report.trouble)
    return troubles[0] if troubles else "The auditor starts, or loads its judge."


def _as_before(seen: Observed) -> Verdict | None:
    """What the status says: an operator that has just begun has asked nobody."""
    for one in seen.status.get("conditions", ()):
        if one.get("type") == QUALITY_KEPT:
            return Verdict({"True": True, "False": False}.get(one["status"]), one["reason"], one["message"])
    return None


def render_audits(desired: DesiredPool, seen: Observed) -> AuditsStatus | None:
    """`status.audits`; None where nothing is audited."""
    if desired.spec.quality is None:
        return None
    report, before = seen.audits.of(desired.audit_basis), seen.status.get("audits")
    if report is None:
        return AuditsStatus.model_validate(before or {})
    return AuditsStatus(
        count=report.quality.num_audits,
        promised_percent=_percent(report.quality.promised),
        measured_percent=_percent(report.quality.measured),
        margin_per_mille=round(1000 * report.quality.reach) if report.quality.num_audits > 1 else 0,
        judge=report.judge,
        corrections_revision=report.corrections.revision,
        correction_reason=report.corrections.reason,
        levels=tuple(map(_level, report.levels)),
    )


def measured_percent(audits: AuditsStatus | None) -> int | None:
    """Once there are enough of them to tell."""
    return None if audits is None or audits.count < FEWEST_AUDITS else audits.measured_percent


def _level(audited: AuditedLevel) -> AuditedLevelStatus:
    return AuditedLevelStatus(
        **coordinates(audited.level),
        count=audited.num_audits,
        promised_percent=_percent(1 - audited.promised_loss),
        measured_percent=_percent(1 - audited.measured_loss),
    )


def _percent(quality: float) -> int:
    """Above 100 the images are better than exact ones."""
    return max(0, round(100 * quality))
