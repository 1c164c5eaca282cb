"""Sharing: equal parts of objects are kept once.

Children of all pools are alike: their probes, ports, security contexts and labels say the same in thousands of objects.
The API server's answers bring each anew. What is shared must not be changed in place.
"""

import sys
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

KNOWN_PARTS = 4096  # a pool's children have some 80 parts of their own, and share twice as many


class SharedValues:
    """The parts that were met last. One that is forgotten is only kept twice afterwards."""

    def __init__(self, most: int = KNOWN_PARTS) -> None:
        self._most = most
        self._known: OrderedDict[tuple[Any, ...], Any] = OrderedDict()

    def share(self, value: Any) -> Any:
        """An equal JSON value, of parts that others have too."""
        if isinstance(value, str):
            return sys.intern(value)
        if isinstance(value, Mapping):
            whole = {sys.intern(name): self.share(one) for name, one in value.items()}
            return self._once((dict, *((name, _mark(one)) for name, one in whole.items())), whole)
        if isinstance(value, list):
            parts = [self.share(one) for one in value]
            return self._once((list, *map(_mark, parts)), parts)
        return value

    def _once(self, mark: tuple[Any, ...], value: Any) -> Any:
        known = self._known.setdefault(mark, value)
        self._known.move_to_end(mark)
        if len(self._known) > self._most:
            self._known.popitem(last=False)
        return known


def _mark(part: Any) -> Any:
    """What equal parts have in common. Containers are shared already; whoever holds a mark holds them, so that no other
    takes their place in memory. 1 is not True.
    """
    if isinstance(part, str):
        return part
    return (type(part), id(part) if isinstance(part, dict | list) else part)
