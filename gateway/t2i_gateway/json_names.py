"""JSON in which no object says a name twice: readers differ in which of the two counts, so neither is taken.

And what one value is wrong by that makes a parser refuse the whole text.
"""

import json
from collections import Counter
from typing import Any

from t2i_runtime.errors import Violation

MAX_DIGITS = 1000  # of a number; Python reads no whole number of more than 4300


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


class _LongNumber:
    """In place of a number that nobody reads."""


def unreadable_value(data: bytes) -> Violation | None:
    """The first field of an object that parsers refuse although it is JSON by its grammar; None = there is none."""
    try:
        body = json.loads(data, parse_int=_whole, parse_float=_number)
    except (ValueError, RecursionError):
        return None
    for name, value in body.items() if isinstance(body, dict) else ():
        shown = name.encode(errors="backslashreplace").decode()[:64]
        if shown != name[:64]:
            return Violation(shown, "the name has half of a surrogate pair, which is no character: leave it out")
        if problem := _problem(value):
            return Violation(shown, problem)
    return None


def _problem(value: object) -> str:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return "it has half of a surrogate pair, which is no character: send both halves, or UTF-8"
    except TypeError:
        return f"it has a number of more than {MAX_DIGITS} digits"
    return ""


def _whole(text: str) -> object:
    return _LongNumber() if len(text) > MAX_DIGITS else int(text)


def _number(text: str) -> object:
    return _LongNumber() if len(text) > MAX_DIGITS else float(text)
