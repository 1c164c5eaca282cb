"""What a level loses for prompts that start from their twins: nearly the same words, another picture.

Paraphrases and twins meet at the same high similarities, and an embedder cannot tell them apart. Nobody knows how many
of a pool's prompts are which. So a band's loss is bounded by what its twins lost, where that is more.

Words tell some twins (`distinguishing_words`). So twins are measured in two parts: those whose words differ, and those
that pass for the same picture. A prompt that agrees with its neighbour is bounded by the second part alone; without
any, no twin bounds it. One that differs is bounded by the first. Where nothing is known, and in profiles of before,
all twins bound it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class TwinLoss:
    """Measured over `num_pairs` prompts of a band, each drawn from its twin's latents; fractions of exact quality."""

    mean_loss: float
    standard_error: float
    num_pairs: int
    differing: "TwinLoss | None" = None  # of those whose words differ; None = twins were not told apart
    passing: "TwinLoss | None" = None  # of the others; None = all differed

    def given(self, words_agree: bool | None) -> "TwinLoss | None":
        """The twins that a neighbour may be, as far as its words are known to agree; None = it is none of them."""
        if words_agree is None or self.differing is None:
            return self
        return self.passing if words_agree else self.differing

    def bound(self, z: float, words_agree: bool | None = None) -> float:
        """Upper bound of the mean loss of those twins, `z` standard errors above it, never below 0."""
        part = self.given(words_agree)
        return 0.0 if part is None else max(0.0, part.mean_loss + z * part.standard_error)

    def sentence(self, words_agree: bool | None = None) -> str:
        """For people: `twins lost 12.0% ± 3.1% in 16 pairs`."""
        part = self.given(words_agree)
        if part is None:
            return "its words agree, and those of all measured twins differed"
        whose = "" if part is self else f"its words {'agree' if words_agree else 'differ'}, and such "
        lost = f"{100 * part.mean_loss:.1f}% ± {100 * part.standard_error:.1f}%"
        return f"{whose}twins lost {lost} in {part.num_pairs} pairs"


def parse_twin_loss(section: Mapping[str, Any] | None) -> TwinLoss | None:
    """The `twins` of a band; None where none were measured, as in profiles of before."""
    if section is None:
        return None
    return TwinLoss(
        float(section["meanLoss"]),
        float(section["standardError"]),
        int(section["pairs"]),
        parse_twin_loss(section.get("differing")),
        parse_twin_loss(section.get("passing")),
    )


def render_twin_loss(loss: TwinLoss | None) -> dict[str, Any]:
    """What `parse_twin_loss` reads back, under its name; empty for None."""
    if loss is None:
        return {}
    return {"twins": _section(loss)}


def _section(loss: TwinLoss) -> dict[str, Any]:
    parts = {"differing": loss.differing, "passing": loss.passing}
    return {
        "meanLoss": loss.mean_loss,
        "standardError": loss.standard_error,
        "pairs": loss.num_pairs,
        **{name: _section(part) for name, part in parts.items() if part is not None},
    }
