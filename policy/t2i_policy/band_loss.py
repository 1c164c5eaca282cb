"""What one level was measured to lose in one band of similarity, and how the profile's JSON says it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from t2i_policy.level import Level, parse_level, render_level
from t2i_policy.twin_loss import TwinLoss, parse_twin_loss, render_twin_loss


@dataclass(frozen=True, slots=True)
class BandLoss:
    """Measured loss of one level for prompts whose nearest cached prompt is this similar.

    `similarity_min` <= cosine < `similarity_max`. Levels without a latent carry one band over [-1, 1.01).
    `mean_loss` may be slightly negative: measurement noise around an exact-like level. So may `diversity_loss`, whose
    standard error is `diversity_error`; None = never measured.
    """

    level: Level
    similarity_min: float
    similarity_max: float
    mean_loss: float
    standard_error: float
    num_samples: int
    diversity_loss: float | None = None
    diversity_error: float = 0.0
    twins: TwinLoss | None = None
    win_rate: float | None = None

    def loss_bound(self, z: float, words_agree: bool | None = None) -> float:
        """Upper bound of the mean loss, `z` standard errors above it, never below 0 nor below the twins' bound."""
        return max(self.own_bound(z), self.twins_bound(z, words_agree))

    def own_bound(self, z: float) -> float:
        """As `loss_bound`, of the band's prompts alone."""
        return max(0.0, self.mean_loss + z * self.standard_error)

    def twins_bound(self, z: float, words_agree: bool | None = None) -> float:
        """What twins at this similarity lost, at most; 0 where none were measured."""
        return 0.0 if self.twins is None else self.twins.bound(z, words_agree)

    def diversity_bound(self, z: float) -> float:
        """Upper bound of the diversity lost. Where none was measured: all, if the level resumes a stored run."""
        if self.diversity_loss is None:
            return 1.0 if self.level.needs_latent else 0.0
        return max(0.0, self.diversity_loss + z * self.diversity_error)

    def sentence(self, words_agree: bool | None = None) -> str:
        """For people: `5.4% ± 3.8% in 22 prompts of similarity 0.90 to 0.95`."""
        loss = f"{100 * self.mean_loss:.1f}% ± {100 * self.standard_error:.1f}% in {self.num_samples} prompts"
        if not self.level.needs_latent:
            return loss
        near = f"{loss} of similarity {self.similarity_min:.2f} to {min(1.0, self.similarity_max):.2f}"
        return near if self.twins is None else f"{near}; {self.twins.sentence(words_agree)}"


def render_bands(bands: Iterable[BandLoss]) -> list[dict[str, Any]]:
    """As in the profile's JSON."""
    return [
        {
            **render_level(band.level),
            "similarityMin": band.similarity_min,
            "similarityMax": band.similarity_max,
            "meanLoss": band.mean_loss,
            "standardError": band.standard_error,
            "samples": band.num_samples,
            **_render_diversity(band),
            **render_twin_loss(band.twins),
            **({} if band.win_rate is None else {"winRate": band.win_rate}),
        }
        for band in bands
    ]


def parse_band(item: Mapping[str, Any]) -> BandLoss:
    """Raises:
    KeyError, TypeError, ValueError: a field is missing or of the wrong kind.
    """
    return BandLoss(
        level=parse_level(item),
        similarity_min=float(item["similarityMin"]),
        similarity_max=float(item["similarityMax"]),
        mean_loss=float(item["meanLoss"]),
        standard_error=float(item["standardError"]),
        num_samples=int(item["samples"]),
        diversity_loss=None if item.get("diversityLoss") is None else float(item["diversityLoss"]),
        diversity_error=float(item.get("diversityError", 0.0)),
        twins=parse_twin_loss(item.get("twins")),
        win_rate=None if item.get("winRate") is None else float(item["winRate"]),
    )


def _render_diversity(band: BandLoss) -> dict[str, float]:
    if band.diversity_loss is None:
        return {}
    return {"diversityLoss": band.diversity_loss, "diversityError": band.diversity_error}
