"""How a model drew when it was measured, beside its steps, and how the profile's JSON says it.

What a profile does not say is not known: files of before keep their meaning.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple


class MeasuredWith(NamedTuple):
    """`precision` as pools call it, such as bf16; empty: not known. `adapters`: names of those that were loaded beside
    the model. None: not known."""

    guidance_scale: float | None = None
    precision: str = ""
    adapters: tuple[str, ...] | None = None


UNKNOWN = MeasuredWith()


def render_measured_with(drawn: MeasuredWith) -> dict[str, Any]:
    """What is known of it; `parse_measured_with` reads it back equal."""
    told: dict[str, Any] = {}
    if drawn.guidance_scale is not None:
        told["guidanceScale"] = drawn.guidance_scale
    if drawn.precision:
        told["precision"] = drawn.precision
    if drawn.adapters is not None:
        told["adapters"] = list(drawn.adapters)
    return told


def parse_measured_with(item: Mapping[str, Any]) -> MeasuredWith:
    """Raises:
    TypeError, ValueError: a field is of the wrong kind, or out of range; names it.
    """
    return MeasuredWith(_guidance(item), _precision(item), _adapters(item))


def _guidance(item: Mapping[str, Any]) -> float | None:
    if "guidanceScale" not in item:
        return None
    scale = float(item["guidanceScale"])
    if not 0 <= scale < math.inf:
        raise ValueError(f"guidanceScale must be a number, 0 or more, got {scale}")
    return scale


def _precision(item: Mapping[str, Any]) -> str:
    found = item.get("precision", "")
    if not isinstance(found, str):
        raise ValueError(f"precision must be a text such as bf16, got {found!r}")
    return found


def _adapters(item: Mapping[str, Any]) -> tuple[str, ...] | None:
    if "adapters" not in item:
        return None
    found = item["adapters"]
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise ValueError(f"adapters must be a list of their names, got {found!r}")
    return tuple(found)
