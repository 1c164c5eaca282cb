"""`--fault WORKER@FROM-UNTIL[xSLOWDOWN]`: a worker dies, or steps slower, between two seconds of the trace."""

import re
from collections.abc import Sequence

from t2i_simulator.faults import Fault
from t2i_simulator.workers import Group
from t2ictl.errors import InputInvalid

_FORM = re.compile(r"(?P<worker>[a-z0-9-]+)@(?P<at>\d+(\.\d+)?)-(?P<until>\d+(\.\d+)?)?(x(?P<slowdown>\d+(\.\d+)?))?")


def parse_faults(texts: Sequence[str], groups: Sequence[Group]) -> tuple[Fault, ...]:
    """Raises:
    InputInvalid: not of that form, ends before it begins, or names no worker of the pool.
    """
    names = {f"{group.name}-{number}" for group in groups for number in range(group.num_workers)}
    return tuple(_parse(text, names) for text in texts)


def _parse(text: str, names: set[str]) -> Fault:
    match = _FORM.fullmatch(text)
    if match is None:
        raise InputInvalid(f"--fault {text!r}: expected WORKER@FROM-UNTIL or WORKER@FROM-UNTILxSLOWDOWN, in seconds")
    if match["worker"] not in names:
        raise InputInvalid(f"--fault {text!r}: no worker {match['worker']!r}; they are named like {sorted(names)[0]!r}")
    at_s, until_s = float(match["at"]), float(match["until"] or "inf")
    slowdown = float(match["slowdown"]) if match["slowdown"] else None
    if until_s <= at_s or (slowdown is not None and slowdown <= 0):
        raise InputInvalid(f"--fault {text!r}: must end after it begins, and the slowdown must be above 0")
    return Fault(match["worker"], at_s, until_s, slowdown)
