"""The section of a profile that speaks of another model of the pool, and how the profile's JSON says it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from t2i_policy.band_loss import BandLoss, parse_band, render_bands


class ModelSection(NamedTuple):
    """Another model of the pool: its full schedule, what it takes, what its levels lose against the exact images of
    the profile's own model. Steps are its own."""

    name: str
    base_steps: int
    step_s: tuple[float, ...]
    fixed_s: float
    losses: tuple[BandLoss, ...]
    model_digest: str = ""


def render_section(section: ModelSection) -> dict[str, Any]:
    """Another model of the pool, as in the profile's JSON."""
    return {
        "name": section.name,
        "modelDigest": section.model_digest,
        "baseSteps": section.base_steps,
        "stepSeconds": list(section.step_s),
        "fixedSeconds": section.fixed_s,
        "losses": render_bands(section.losses),
    }


def parse_section(item: Mapping[str, Any]) -> ModelSection:
    name, losses = str(item["name"]), tuple(parse_band(band) for band in item["losses"])
    if not name or any(band.level.model != name or band.level.needs_latent for band in losses):
        raise ValueError(f"losses of {name!r} must be of its own levels, which skip no steps")
    return ModelSection(
        name,
        int(item["baseSteps"]),
        tuple(float(value) for value in item["stepSeconds"]),
        float(item["fixedSeconds"]),
        losses,
        str(item.get("modelDigest", "")),
    )
