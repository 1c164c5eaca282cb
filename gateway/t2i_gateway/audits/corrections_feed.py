"""Following the auditor's corrections: requests are decided by the corrected profile, the old or the new as a whole.

Silence changes nothing: what was told last stays in force.
"""

import asyncio
import logging
from contextlib import aclosing

import grpc

from t2i_gateway.audits.auditor_connection import AuditorConnection
from t2i_gateway.metrics import GatewayMetrics
from t2i_gateway.planning_loop import PlanningLoop
from t2i_policy.backoff import Backoff
from t2i_policy.corrections import MOST_ADDED, Correction, Corrections
from t2i_protos.v1 import auditor_pb2
from t2i_runtime.level_messages import to_level

log = logging.getLogger(__name__)
BACKOFF = Backoff(first_s=0.5, most_s=15.0)


class CorrectionsFeed:
    """Used from one event loop."""

    def __init__(self, auditor: AuditorConnection, planning: PlanningLoop, metrics: GatewayMetrics) -> None:
        self._auditor = auditor
        self._planning = planning
        self._metrics = metrics
        self._digest = planning.rules.profile.losses_digest
        self._refused = ""

    async def run(self) -> None:
        """Follow until cancelled."""
        pauses = BACKOFF.pauses()
        while True:
            try:
                async with aclosing(self._auditor.corrections()) as news:
                    async for told in news:
                        pauses = BACKOFF.pauses()
                        self.take_in(told)
            except grpc.aio.AioRpcError as error:
                log.info("the auditor cannot be followed (%s); corrections stay as they are", error.code().name)
            except TimeoutError:
                log.warning("the auditor fell silent; corrections stay as they are")
            await asyncio.sleep(next(pauses))

    def take_in(self, told: auditor_pb2.Corrections) -> None:
        """Decide by these from now on, if they are of this gateway's profile."""
        if told.corrections and told.profile != self._digest:
            if self._refused != told.profile:
                self._refused = told.profile
                log.warning("the auditor's corrections are of another profile, so they are left out")
            return
        try:
            found = _read(told)
        except ValueError as error:
            log.warning("the auditor's corrections cannot be used: %s", error)
            return
        before = self._planning.rules.profile.corrections
        if (found.revision, found.corrections) != (before.revision, before.corrections):
            self._planning.decide_by(self._planning.rules.corrected(found))
            log.info("corrections %d are in force: of %d bands", found.revision, len(found.corrections))
        self._metrics.corrections_revision.set(found.revision)


def _read(told: auditor_pb2.Corrections) -> Corrections:
    """Raises:
    ValueError: a level is none, or a loss is out of range.
    """
    found = [Correction(to_level(one.level), one.similarity_min, one.added_loss) for one in told.corrections]
    wrong = [one.added_loss for one in found if not -MOST_ADDED <= one.added_loss <= MOST_ADDED]
    if wrong:
        raise ValueError(f"added_loss must be from {-MOST_ADDED} to {MOST_ADDED}, got {wrong[0]}")
    return Corrections(told.revision, tuple(found), told.profile)
