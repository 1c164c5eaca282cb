"""What a level loses for prompts that start from their twins: nearly the same words, another picture.

Paraphrases and twins meet at the same high similarities, and an embedder cannot tell them apart. Nobody knows how many
of a pool's prompts are which. So a band's loss is bounded by what its twins lost, where that is more.
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

    def bound(self, z: float) -> float:
        """Upper bound of the mean loss, `z` standard errors above it, never below 0."""
        return max(0.0, self.mean_loss + z * self.standard_error)

    def sentence(self) -> str:
        """For people: `twins lost 12.0% ± 3.1% in 16 pairs`."""
        lost = f"{100 * self.mean_loss:.1f}% ± {100 * self.standard_error:.1f}%"
        return f"twins lost {lost} in {self.num_pairs} pairs"


def parse_twin_loss(section: Mapping[str, Any] | None) -> TwinLoss | None:
    """The `twins` of a band; None where none were measured, as in profiles of before."""
    if section is None:
        return None
    return TwinLoss(float(section["meanLoss"]), float(section["standardError"]), int(section["pairs"]))


def render_twin_loss(loss: TwinLoss | None) -> dict[str, Any]:
    """What `parse_twin_loss` reads back, under its name; empty for None."""
    if loss is None:
        return {}
    return {
        "twins": {"meanLoss": loss.mean_loss, "standardError": loss.standard_error, "pairs": loss.num_pairs},
    }
