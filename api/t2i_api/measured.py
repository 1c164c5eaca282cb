"""Whether a model of a pool draws as it did when its profile was measured. Equal for the pool's own and all others.

A field that the profile does not say is not known, and nothing is said of it.
"""

from collections.abc import Iterator
from math import isclose
from typing import NamedTuple

from t2i_api.model import ModelPart
from t2i_policy.model_section import ModelSection
from t2i_policy.profile import ModelUnmeasured


class _Difference(NamedTuple):
    """What was measured, the field that says otherwise, what it says, and how it could be made to fit."""

    measured: str
    field: str
    told: object
    instead: str


def check_measured(section: ModelSection, part: ModelPart) -> None:
    """`part` is the model as it draws in the pool.

    Raises:
        ModelUnmeasured: it was measured otherwise; names the field, both values and the next step.
    """
    found = next(_differences(section, part), None)
    if found is None:
        return
    who, place = (f"models: {section.name!r}", "workerGroups") if section.name else ("the pool's own model", "model")
    raise ModelUnmeasured(
        f"{who} was measured {found.measured}, its {found.field} in {place} is {found.told}: "
        f"measure it again with t2ictl profile, or {found.instead}"
    )


def _differences(section: ModelSection, part: ModelPart) -> Iterator[_Difference]:
    steps, drawn = section.base_steps, section.measured_with
    if steps != part.num_inference_steps:
        yield _Difference(
            f"at {steps} steps", "numInferenceSteps", part.num_inference_steps, f"set numInferenceSteps to {steps}"
        )
    scale, percent = drawn.guidance_scale, part.guidance_scale_percent
    if scale is not None and not isclose(100 * scale, percent, abs_tol=0.1):
        instead = f"set guidanceScalePercent to {round(100 * scale)}"
        yield _Difference(f"at guidance scale {scale:g}", "guidanceScalePercent", percent, instead)
    if drawn.precision not in ("", part.precision):
        yield _Difference(f"in {drawn.precision}", "precision", part.precision, f"set precision to {drawn.precision}")
    names = [adapter.name for adapter in part.adapters]
    if drawn.adapters is not None and (more := [name for name in names if name not in drawn.adapters]):
        measured = f"with adapters {_listed(drawn.adapters)}" if drawn.adapters else "without adapters"
        yield _Difference(measured, "adapters", _listed(names), f"leave out {_listed(more)}")


def _listed(names: list[str] | tuple[str, ...]) -> str:
    return ", ".join(names)
