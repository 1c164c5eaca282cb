"""The section of a profile that speaks of another model of the pool, and how the profile's JSON says it."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from t2i_policy.band_loss import BandLoss, parse_band, render_bands
from t2i_policy.measured_with import UNKNOWN, MeasuredWith, parse_measured_with, render_measured_with


class ModelSection(NamedTuple):
    """Another model of the pool: its full schedule, what it takes, what its levels lose against the exact images of
    the profile's own model. Steps are its own."""

    name: str
    base_steps: int
    step_s: tuple[float, ...]
    fixed_s: float
    losses: tuple[BandLoss, ...]
    model_digest: str = ""
    measured_with: MeasuredWith = UNKNOWN


def render_section(section: ModelSection) -> dict[str, Any]:
    """Another model of the pool, as in the profile's JSON."""
    return {
        "name": section.name,
        "modelDigest": section.model_digest,
        "baseSteps": section.base_steps,
        "stepSeconds": list(section.step_s),
        "fixedSeconds": section.fixed_s,
        "losses": render_bands(section.losses),
        **render_measured_with(section.measured_with),
    }


def parse_sections(items: Iterable[Mapping[str, Any]]) -> tuple[ModelSection, ...]:
    """All of a profile.

    Raises:
        KeyError, TypeError: a field is missing or of the wrong kind.
        ValueError: a field is out of range, or two sections have one name; names the field and the model.
    """
    sections = tuple(parse_section(item) for item in items)
    names = [section.name for section in sections]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise ValueError(f"name: {repeated!r} has more than one section")
    return sections


def parse_section(item: Mapping[str, Any]) -> ModelSection:
    """As `parse_sections`, of one model."""
    name, losses = str(item["name"]), tuple(parse_band(band) for band in item["losses"])
    if not name or any(band.level.model != name or band.level.needs_latent for band in losses):
        raise ValueError(f"losses of {name!r} must be of its own levels, which skip no steps")
    section = ModelSection(
        name,
        int(item["baseSteps"]),
        tuple(float(value) for value in item["stepSeconds"]),
        float(item["fixedSeconds"]),
        losses,
        str(item.get("modelDigest", "")),
        parse_measured_with(item),
    )
    _check(section)
    return section


def _check(section: ModelSection) -> None:
    of = f"of {section.name!r}"
    if not section.losses:
        raise ValueError(f"losses {of} are empty: they must hold a band of each of its levels")
    check_schedule(section.base_steps, section.step_s, section.fixed_s, f" {of}")


def check_schedule(base_steps: int, step_s: Sequence[float], fixed_s: float, of: str = "") -> None:
    """A model's full schedule, and what a step and the rest of a request take.

    Raises:
        ValueError: one is out of range; names the field, and whose it is.
    """
    if base_steps < 1:
        raise ValueError(f"baseSteps{of} must be at least 1, got {base_steps}")
    if not step_s or not all(0 < value < math.inf for value in step_s):
        raise ValueError(f"stepSeconds{of} must be seconds above 0, one for each batch size: {list(step_s)}")
    if not 0 <= fixed_s < math.inf:
        raise ValueError(f"fixedSeconds{of} must be seconds, 0 or more, got {fixed_s}")
