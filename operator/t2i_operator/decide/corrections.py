"""Corrections of the profile by audits: what of them is kept, since when, and what follows for the pool's plan.

The auditor makes them and begins with those that it finds in the ConfigMap POOL-audits when it starts. The operator
writes that ConfigMap: newer corrections at most once in EVERY_S, with a short history of their reasons. What belongs to
another profile or judge replaces what was kept, whatever its revision.

Where the pool recalibrates, plans are made with the same corrections as gateways decide by.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from t2i_api.names import AUDITOR, audits_name
from t2i_operator.clock import Instant
from t2i_operator.decide.types import AuditReport, ChildKey, ChildSeen, DesiredPool
from t2i_operator.manifests.auditor import CORRECTIONS_KEY
from t2i_operator.manifests.child import Manifest, PoolRef, child
from t2i_policy.corrections import (
    NO_CORRECTIONS,
    Corrections,
    CorrectionsInvalid,
    parse_corrections,
    render_corrections,
)
from t2i_policy.planning.classes import build_classes

HISTORY_KEY = "history.json"
HISTORY_LENGTH = 20
EVERY_S = 60.0


@dataclass(frozen=True, slots=True)
class CorrectionsChange:
    """One entry of the history. `at` is a time as Kubernetes writes it."""

    at: str
    revision: int
    judge: str
    reason: str

    @property
    def at_s(self) -> float:
        """Seconds since 1970.

        Raises:
            ValueError: it is no time.
        """
        return datetime.fromisoformat(self.at).timestamp()


@dataclass(frozen=True, slots=True)
class CorrectionsRecord:
    """What the ConfigMap holds; the newest change is the first."""

    corrections: Corrections = NO_CORRECTIONS
    history: tuple[CorrectionsChange, ...] = ()

    @property
    def changed_s(self) -> float:
        """0: never."""
        return self.history[0].at_s if self.history else 0.0


@dataclass(frozen=True, slots=True)
class RecordDecision:
    """What is to be kept. `waits`: something newer is known, and may be written later."""

    record: CorrectionsRecord
    waits: bool = False


def read_record(pool: str, children: Mapping[ChildKey, ChildSeen]) -> CorrectionsRecord:
    """What is kept. Nothing, if it cannot be read: then the auditor begins anew as well."""
    there = children.get(("ConfigMap", audits_name(pool)))
    data = {} if there is None else there.manifest.get("data") or {}
    try:
        corrections = parse_corrections(data[CORRECTIONS_KEY])
        record = CorrectionsRecord(corrections, _parse_history(data.get(HISTORY_KEY, "[]")))
        record.changed_s  # noqa: B018 - raises if it is no time
    except (CorrectionsInvalid, KeyError, OverflowError, RecursionError, TypeError, ValueError):
        return CorrectionsRecord()
    return record


def next_record(kept: CorrectionsRecord, report: AuditReport | None, now: Instant) -> RecordDecision:
    """`kept` itself, if nothing is newer."""
    if report is None or not _is_newer(report.corrections, kept.corrections):
        return RecordDecision(kept)
    if now.unix_s - kept.changed_s < EVERY_S:
        return RecordDecision(kept, waits=True)
    found = report.corrections
    change = CorrectionsChange(now.text, found.revision, found.judge, found.reason)
    return RecordDecision(CorrectionsRecord(found, (change, *kept.history)[:HISTORY_LENGTH]))


def _is_newer(found: Corrections, kept: Corrections) -> bool:
    if found.revision == 0 or not found.judge:  # it begins with what is kept, and has no judge yet
        return False
    return found.revision > kept.revision or (found.profile, found.judge) != (kept.profile, kept.judge)


def render_record(ref: PoolRef, record: CorrectionsRecord) -> list[Manifest]:
    """The ConfigMap; none while nothing was ever corrected."""
    if not record.history:
        return []
    data = {CORRECTIONS_KEY: render_corrections(record.corrections), HISTORY_KEY: _render_history(record.history)}
    return [child(ref, AUDITOR, "v1", "ConfigMap", {"name": audits_name(ref.name), "data": data})]


def _render_history(history: Sequence[CorrectionsChange]) -> str:
    entries = [{"at": one.at, "revision": one.revision, "judge": one.judge, "reason": one.reason} for one in history]
    return json.dumps(entries, indent=1) + "\n"


def _parse_history(text: str) -> tuple[CorrectionsChange, ...]:
    entries: list[Mapping[str, Any]] = json.loads(text)
    return tuple(
        CorrectionsChange(str(one["at"]), int(one["revision"]), str(one["judge"]), str(one["reason"]))
        for one in entries
    )


def correct(desired: DesiredPool, record: CorrectionsRecord) -> DesiredPool:
    """With the profile that gateways decide by. The levels stay: another ladder would restart every gateway."""
    audits, corrections = desired.spec.quality, record.corrections
    if audits is None or not audits.recalibrate or corrections.profile != desired.profile.losses_digest:
        return desired
    profile, spec = desired.profile.corrected(corrections), desired.spec
    classes = build_classes(spec.ladder, profile, spec.slo.max_loss, spec.slo.harmless_loss)
    return replace(desired, profile=profile, classes=classes, corrections_revision=corrections.revision)
