"""Corrections: what audits add to the losses that a profile promises, and the file that they are kept in between runs.

They belong to the losses that they were measured against. So a file, and a message, name the digest of these losses and
the judge. A profile that was measured anew begins without corrections.

    promised loss = the profile's bound + added loss, cut to 0..1

The bound is the largest of the band's, the predictor's and the twins': all are shifted alike, so that more similar
prompts inside a band are never promised more loss than before.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from t2i_policy.level import Level, parse_level, render_level

SCHEMA = "t2iserving.dev/corrections/v1"
MOST_ADDED = 0.5  # of exact: a pool that is further off needs a new profile, not a correction
MOST_REVISION = 2**63 - 1  # messages hold a little more


class CorrectionsInvalid(ValueError):
    """The file of corrections cannot be used; the message names the field."""


@dataclass(frozen=True, slots=True)
class Correction:
    """`added_loss` is a fraction of exact, below 0 where images are better than promised. `similarity_min` is the lower
    edge of the band in the profile, -1 where the level needs no latent."""

    level: Level
    similarity_min: float
    added_loss: float


@dataclass(frozen=True, slots=True)
class Corrections:
    """All that are in force. `profile`: the digest of the losses they are added to. `judge`: whose scores they are of.

    `reason` says why these replaced those before. Revision 0: none were made.
    """

    revision: int = 0
    corrections: tuple[Correction, ...] = ()
    profile: str = ""
    judge: str = ""
    reason: str = ""
    added: Mapping[tuple[Level, float], float] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "added", {(one.level, one.similarity_min): one.added_loss for one in self.corrections})

    def of(self, level: Level, similarity_min: float) -> float:
        """What is added in a band."""
        return self.added.get((level, similarity_min), 0.0)

    def applied(self, loss: float, level: Level, similarity_min: float) -> float:
        """The loss that is promised instead."""
        added = self.of(level, similarity_min)
        return min(1.0, max(0.0, loss + added)) if added else loss


NO_CORRECTIONS = Corrections()


def render_corrections(corrections: Corrections) -> str:
    """The JSON text of a file; `parse_corrections` reads it back equal."""
    document = {
        "schema": SCHEMA,
        "revision": corrections.revision,
        "profile": corrections.profile,
        "judge": corrections.judge,
        "reason": corrections.reason,
        "corrections": [
            {**render_level(one.level), "similarityMin": one.similarity_min, "addedLoss": one.added_loss}
            for one in corrections.corrections
        ],
    }
    return json.dumps(document, indent=1) + "\n"


def parse_corrections(text: str) -> Corrections:
    """Read what `render_corrections` wrote.

    Raises:
        CorrectionsInvalid: not JSON, another schema, or a field missing or out of range. What to do about it is for
            the caller to say, who knows where they are kept.
    """
    try:
        document: Mapping[str, Any] = json.loads(text)
        if document["schema"] != SCHEMA:
            raise CorrectionsInvalid(f"schema: expected {SCHEMA}, got {document['schema']!r}")
        return Corrections(
            revision=_parse_revision(document["revision"]),
            corrections=tuple(_parse(item) for item in document["corrections"]),
            profile=str(document["profile"]),
            judge=str(document["judge"]),
            reason=str(document.get("reason", "")),
        )
    except CorrectionsInvalid:
        raise
    except RecursionError as error:
        raise CorrectionsInvalid("corrections are not usable: they are nested too deeply") from error
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise CorrectionsInvalid(f"corrections are not usable: {error!r}") from error


def _parse_revision(value: Any) -> int:
    revision = int(value)
    if not 0 <= revision <= MOST_REVISION:
        raise CorrectionsInvalid(f"revision: must be from 0 to {MOST_REVISION}, got {revision}")
    return revision


def _parse(item: Mapping[str, Any]) -> Correction:
    added = float(item["addedLoss"])
    if not -MOST_ADDED <= added <= MOST_ADDED:
        raise CorrectionsInvalid(f"addedLoss: must be from {-MOST_ADDED} to {MOST_ADDED}, got {added}")
    similarity_min = float(item["similarityMin"])
    if not math.isfinite(similarity_min):
        raise CorrectionsInvalid(f"similarityMin: must be a number, got {similarity_min}")
    return Correction(parse_level(item), similarity_min, added)
