"""Another model for a request that its own model cannot take in time, or that finds the queue full.

Decided by the same rules over the other models that have ready workers. So a demanded model, `exact`, a floor and what
nobody measured bind as before: who may be served by no other model stays refused. A request is never sent to a model
where it would be late too.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from t2i_policy.pool_view import PoolView, join_parts
from t2i_policy.request.admission import Admitted, Refused, RefusedReason
from t2i_policy.request.decide import Decided
from t2i_policy.request.served import ServedReason


class Settled(NamedTuple):
    """What was decided for a request that arrives, and whether it is admitted so."""

    decided: Decided
    admission: Admitted | Refused

    @property
    def found_full(self) -> bool:
        """Too many wait for that model already."""
        return isinstance(self.admission, Refused) and self.admission.reason is RefusedReason.QUEUE_FULL


def others_ready(pool: PoolView, model: str) -> PoolView | None:
    """What the pool has without this model; None: no other one has a ready worker."""
    left = {name: part for name, part in pool.parts.items() if name != model and part.ready}
    return join_parts(left) if left else None


def decide_elsewhere(serve: Callable[[PoolView], Decided], pool: PoolView, model: str) -> Decided | None:
    """What `serve` decides without this model; None: no other one may serve it, or none has a ready worker."""
    rest = others_ready(pool, model)
    if rest is None:
        return None
    decided = serve(rest)
    return decided if decided.served.level.model in rest.parts else None


def decide_with_room(
    serve: Callable[[PoolView], Decided], admit: Callable[[Decided], Admitted | Refused], pool: PoolView
) -> Settled:
    """What `serve` decides; where too many wait for that model, by another one that admits it, if any does."""
    decided = serve(pool)
    first = settled = Settled(decided, admit(decided))
    rest = pool if pool.parts else None
    while settled.found_full and rest is not None:
        model = settled.decided.served.level.model
        found = decide_elsewhere(serve, rest, model)
        if found is None:
            return first
        rest, settled = others_ready(rest, model), Settled(moved(found, ServedReason.LOAD), admit(found))
    return settled if isinstance(settled.admission, Admitted) else first


def moved(decided: Decided, reason: ServedReason) -> Decided:
    """It serves for this reason instead of the one that it was meant for."""
    return replace(decided, served=replace(decided.served, reason=reason))
