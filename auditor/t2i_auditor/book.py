"""What the auditor knows: recent audits as numbers, what they say, and the corrections in force. One writer: `take_in`.

Gateways that wait for corrections are woken at every change.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from t2i_auditor.metrics import AuditorMetrics
from t2i_policy.audits import Audit, AuditSummary, BandOf, by_band, summarise
from t2i_policy.corrections import NO_CORRECTIONS, Corrections
from t2i_policy.profile import LevelProfile
from t2i_policy.recalibration import WINDOW, recalibrate, since_change

log = logging.getLogger(__name__)


class AuditBook:
    """Used from one event loop. `recalibrates`: spec.quality.recalibrate. `save` hears of every new revision."""

    def __init__(
        self,
        profile: LevelProfile,
        metrics: AuditorMetrics,
        *,
        recalibrates: bool,
        corrections: Corrections = NO_CORRECTIONS,
        save: Callable[[Corrections], None] | None = None,
    ) -> None:
        self.profile = profile
        self.corrections = corrections
        self.total = 0
        self._metrics = metrics
        self._recalibrates = recalibrates
        self._judge = ""
        self._save = save
        self._recent: deque[Audit] = deque(maxlen=WINDOW)
        self._counted: Sequence[Audit] = ()
        self._since_revision = 0
        self._changed = asyncio.Event()
        self._show()

    @property
    def whole(self) -> AuditSummary:
        """Of the recent audits: the last 400, or fewer, since the last change of what is lost."""
        return summarise(self._counted)

    @property
    def bands(self) -> Mapping[BandOf, AuditSummary]:
        """Of the same audits; their counts sum to that of `whole`."""
        return {band: summarise(audits) for band, audits in by_band(self._counted).items()}

    def take_in(self, audit: Audit) -> None:
        """One more; the corrections may change by it."""
        self._recent.append(audit)
        self._counted = since_change(tuple(self._recent))
        self.total += 1
        self._since_revision += 1
        if self._recalibrates:
            self._revise()
        self._show()

    def judged_by(self, judge: str) -> None:
        """Whose scores the audits are of. Corrections by another's go."""
        self._judge, before = judge, self.corrections
        if before.revision and before.judge != judge:
            reason = f"the judge is {judge} now, and was {before.judge}"
            self._put_in_force(Corrections(before.revision + 1, (), self.profile.losses_digest, judge, reason))
            self._show()

    async def changed(self, limit_s: float) -> None:
        """Return after the next change of the corrections, or after the limit."""
        waiting = self._changed
        try:
            async with asyncio.timeout(limit_s):
                await waiting.wait()
        except TimeoutError:
            return

    def _revise(self) -> None:
        found = recalibrate(tuple(self._recent), self.corrections, self.profile, self._since_revision, self._judge)
        if found is not None:
            self._put_in_force(found)

    def _put_in_force(self, found: Corrections) -> None:
        self.corrections, self._since_revision = found, 0
        log.info("corrections %d: %s", found.revision, found.reason)
        if self._save is not None:
            self._save(found)
        self._changed.set()
        self._changed = asyncio.Event()

    def _show(self) -> None:
        added = {BandOf(*place): loss for place, loss in self.corrections.added.items()}
        self._metrics.show(self.whole, self.bands, added)
        self._metrics.revision.set(self.corrections.revision)
