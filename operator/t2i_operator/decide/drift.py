"""Drift: does a live object still say what we rendered?

The API server adds defaults and other controllers add fields, so a live object may say more than we did; it must not
say less or otherwise. Quantities are compared by value ("1000m" is "1").
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from kubernetes.utils.quantity import parse_quantity


def says_all(live: Any, wanted: Any) -> bool:
    """True if everything in `wanted` is in `live`. Lists must have the same length and order."""
    if isinstance(wanted, Mapping):
        if not isinstance(live, Mapping):
            return not wanted
        return all(says_all(live.get(key), value) for key, value in wanted.items())
    if isinstance(wanted, Sequence) and not isinstance(wanted, str):
        if not isinstance(live, Sequence) or isinstance(live, str):
            return not wanted
        return len(live) == len(wanted) and all(says_all(one, other) for one, other in zip(live, wanted, strict=True))
    if live is None and wanted == "":
        return True
    return bool(live == wanted) or _same_quantity(live, wanted)


def _same_quantity(live: Any, wanted: Any) -> bool:
    one, other = _quantity(live), _quantity(wanted)
    return one is not None and one == other


def _quantity(value: Any) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        return None
    try:
        parsed: Decimal = parse_quantity(value)  # type: ignore[no-untyped-call]
    except ValueError:
        return None
    return parsed
