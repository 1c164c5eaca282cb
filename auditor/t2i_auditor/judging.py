"""Judging pairs: some at once, the others refused, none of it on the event loop.

The judge may need minutes for its weights. Until then, and when it has failed some pairs in a row, `trouble` says why
nothing is judged. One that failed is asked again with the next pair: a service may come back. Why a pair has no score
is logged whenever it is another reason than before.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from t2i_auditor.errors import AuditorBusy, AuditorUnusable, NotJudged, PairInvalid
from t2i_auditor.metrics import AuditorMetrics
from t2i_policy.judge_record import JudgeRecord
from t2i_policy.profile import LevelProfile
from t2i_profiler.errors import JudgeFailed, JudgeUnusable
from t2i_profiler.images import Sample
from t2i_profiler.judges.catalogue import open_judge
from t2i_profiler.judges.judge import Judge, JudgedImage, qualities
from t2i_runtime.errors import Violation
from t2i_scenes import read_caption

log = logging.getLogger(__name__)
MAX_PAIRS = 4  # at once; gateways have few under way
SCENES = "scenes"  # the judge that compares with facts of the caption, so it must be one
OPEN_AGAIN_S = 30.0  # after weights could not be had
JUDGE_LIMIT_S = 50.0  # less than gateways wait, so that a late judge is told by the auditor
TROUBLE_FROM = 3  # pairs in a row: one that cannot be scored is no news, and conditions must not flicker


class PairQuality(NamedTuple):
    """In 0..1, 1 is best."""

    image: float
    exact: float


class PairJudge:
    """The judge of one pool. Used from one event loop."""

    def __init__(
        self, text: str, models_dir: Path, device: str, *, profile: LevelProfile, metrics: AuditorMetrics
    ) -> None:
        self._text = text
        self._models_dir = models_dir
        self._device = device
        self._profile = profile
        self._metrics = metrics
        self._judge: Judge | None = None
        self._busy = 0
        self._failed_in_a_row = 0
        self._last_failure = ""
        self.trouble = "the judge is being loaded"

    @property
    def ready(self) -> bool:
        """Whether it may be asked. One that failed may: else nobody would find that it scores again."""
        return self._judge is not None

    @property
    def name(self) -> str:
        """Its kind and the digest of its weights; empty until it is there."""
        if self._judge is None:
            return ""
        card = self._judge.card
        return f"{card.kind} {card.digest}".strip()

    async def open(self) -> None:
        """Load it; a hub that is away is asked again.

        Raises:
            AuditorUnusable: it is another judge than the profile's.
        """
        while self._judge is None:
            try:
                opened = await open_judge(self._text, self._models_dir, self._device)
            except JudgeUnusable as error:
                self.trouble = f"spec.quality.judge: {error}"
                log.warning("%s", self.trouble)
                await asyncio.sleep(OPEN_AGAIN_S)
                continue
            check_judge(opened.card.record, self._profile)
            self._judge, self.trouble = opened, ""
            self._metrics.ready.set(1)

    def can_score(self, prompt: str) -> bool:
        """Whether images of such a prompt can be scored at all."""
        return self._text != SCENES or read_caption(prompt) is not None

    async def score(self, prompt: str, image: bytes, exact: bytes) -> PairQuality:
        """Raises:
        AuditorBusy: too many pairs at once.
        NotJudged: the judge is not there, or failed.
        PairInvalid: it cannot judge this pair.
        """
        if self._judge is None:
            raise NotJudged(self.trouble)
        if self._busy >= MAX_PAIRS:
            raise AuditorBusy(f"{MAX_PAIRS} pairs are being judged; drop this one")
        self._busy += 1
        began_s = time.perf_counter()
        try:
            async with asyncio.timeout(JUDGE_LIMIT_S):
                found = await self._ask(self._judge, _pair(prompt, image, exact, self._text))
        except JudgeFailed as error:
            raise self._failed(str(error)) from error
        except TimeoutError as error:
            raise self._failed(f"no answer within {JUDGE_LIMIT_S:.0f} s") from error
        except (OSError, ValueError) as error:
            raise PairInvalid([Violation("image", "one of the images cannot be read")]) from error
        finally:
            self._busy -= 1
        self._failed_in_a_row = 0
        self._show_trouble("")
        self._metrics.judging.observe(time.perf_counter() - began_s)
        return found

    @staticmethod
    async def _ask(judge: Judge, pair: Sequence[JudgedImage]) -> PairQuality:
        served, exact = await qualities(judge, pair)
        return PairQuality(served, 1.0 if judge.card.compares else exact)

    def _failed(self, why: str) -> NotJudged:
        """One more pair has no score. Reasons of judges hold no prompt."""
        self._failed_in_a_row += 1
        if why != self._last_failure:
            log.warning("the judge gave no score for a pair: %s", why)
        self._last_failure = why
        if self._failed_in_a_row >= TROUBLE_FROM:
            self._show_trouble(f"the judge gave no score for {TROUBLE_FROM} or more pairs in a row, last: {why}")
        return NotJudged(f"the judge gave no score for this pair: {why}")

    def _show_trouble(self, trouble: str) -> None:
        if bool(trouble) != bool(self.trouble):
            log.log(logging.WARNING if trouble else logging.INFO, "judge: %s", trouble or "scores again")
        if self.trouble and not trouble:
            self._last_failure = ""
        self.trouble = trouble
        self._metrics.ready.set(not trouble)

    async def close(self) -> None:
        if self._judge is not None:
            await self._judge.close()


def check_judge(opened: JudgeRecord, profile: LevelProfile) -> None:
    """Raises:
    AuditorUnusable: the profile's losses are of another judge.
    """
    if profile.judge is None:
        log.warning("the profile does not say whose scores its losses are of; it is taken for %s", opened.phrase)
    elif not profile.judge.same_as(opened):
        raise AuditorUnusable(
            f"spec.quality.judge is {opened.phrase}, the profile's losses are of {profile.judge.phrase}: losses of two "
            "judges do not compare; name the profile's judge, or measure with yours (t2ictl profile --judge)"
        )


def _pair(prompt: str, image: bytes, exact: bytes, judge: str) -> Sequence[JudgedImage]:
    """The image as it was served, and the exact one beside itself."""
    sample = Sample(prompt, 0)
    if judge == SCENES:
        sample = replace(sample, scene=read_caption(prompt))
        if sample.scene is None:
            raise PairInvalid([Violation("prompt", "the judge scenes scores captions of the scenes model only")])
    return JudgedImage(image, exact, sample), JudgedImage(exact, exact, sample)
