"""JSON in which no object says a name twice: readers differ in which of the two counts, so neither is taken."""

import json
from collections import Counter
from typing import Any


class NameRepeated(ValueError):
    """Raised when an object has a name twice. `name` may be what a client wrote."""

    def __init__(self, name: str) -> None:
        super().__init__("an object has a name twice")
        self.name = name


def load_json(data: bytes) -> Any:
    """Raises:
    NameRepeated: an object has a name twice.
    ValueError, RecursionError: it is no JSON.
    """
    return json.loads(data, object_pairs_hook=_object)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    read = dict(pairs)
    if len(read) < len(pairs):
        raise NameRepeated(Counter(name for name, _ in pairs).most_common(1)[0][0])
    return read
