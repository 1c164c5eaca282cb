"""What kind of weights diffusers is told to load, read from the names of the chosen files."""

import re
from collections.abc import Iterable

_VARIANT = re.compile(r"\.(?P<kind>[a-z][a-z0-9_]*)(-\d+-of-\d+)?\.(safetensors|bin)$")


def kind_of_weights(names: Iterable[str]) -> str | None:
    """None: the plain ones."""
    return min((found["kind"] for name in names if (found := _VARIANT.search(name))), default=None)
