"""Refusals: what the API server refused of a pool, as the problem that its conditions and an event tell.

exceeded quota     NoCapacity   the quota's own words
forbidden          Forbidden    which verb on which resource the operator may not
anything else      Refused      e.g. a value in a group's template that only the API server can judge
"""

from t2i_operator.decide.observed import Problem

NO_CAPACITY = "NoCapacity"
FORBIDDEN = "Forbidden"
REFUSED = "Refused"
_QUOTA = "exceeded quota"


def explain_refusal(status: int, message: str) -> Problem:
    """`status` is HTTP's, `message` the API server's own, with the path before it."""
    if status == 403 and _QUOTA in message:
        return Problem(NO_CAPACITY, f"{message}; raise the quota of the namespace, or ask for less")
    if status == 403:
        return Problem(FORBIDDEN, f"{message}; grant it to the operator (docs/permissions.md lists what it needs)")
    return Problem(REFUSED, f"{message}; change what the message names")
