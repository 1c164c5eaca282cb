"""Whether a request waits for a worker that has its latent, or is served without one by another.

Each worker may keep its own latents. Then a level that needs one can be served only by the workers that hold it.
Decided from both decisions for the request, with the latent and without any. The pool counts too, and what waits for
the holders already. The latent is given up only for an image that comes earlier. That image must lose no more, unless
the one with the latent would come too late. It must never promise a latent that no ready worker has.

    with    = wait(H) + finish(H, steps with the latent)       H: ready workers that hold it; infinite without one;
                                                               never less than the estimate over all workers
    without = the estimate of the decision without latents     over all workers, the queue included
    wait(H) = 0 with a free slot there, else turns * steps that wait for H / steps a second of H

So a prompt that many ask for at once draws copies to idle workers: a run in full stores its latents where it ran.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import inf

from t2i_policy.pool_view import PoolView, WorkerView, best_finish_s
from t2i_policy.request.decide import Decided
from t2i_policy.request.served import ServedReason


@dataclass(frozen=True, slots=True)
class HolderLine:
    """The workers that hold a latent, by name, and the denoising steps of requests that wait for one of them."""

    holders: frozenset[str]
    waiting_steps: int = 0


def reachable_steps(holdings: Mapping[int, frozenset[str]], workers: Iterable[WorkerView]) -> frozenset[int]:
    """Of the steps whose latents workers hold, by name, those that a ready worker has."""
    ready = {worker.name for worker in workers if worker.ready}
    return frozenset(step for step, holders in holdings.items() if holders & ready)


def choose_with_holders(latent: Decided, without: Decided, pool: PoolView, line: HolderLine, left_s: float) -> Decided:
    """`latent` was served a level that needs one, `without` none; both by the same pool. `left_s`
    seconds are left to the deadline.
    """
    finish_s = max(latent.served.estimated_s, _finish_s(pool, line, latent.served.level.cost))
    sooner = without.served.estimated_s < finish_s
    worse = without.served.expected_loss > latent.served.expected_loss
    if not sooner or (worse and finish_s <= left_s):
        return replace(latent, served=replace(latent.served, estimated_s=finish_s))
    return replace(latent, served=replace(without.served, reason=ServedReason.LATENT_ELSEWHERE))


def _finish_s(pool: PoolView, line: HolderLine, steps: float) -> float:
    holders = [worker for worker in pool.ready if worker.name in line.holders]
    steps_per_s = sum(worker.steps_per_s for worker in holders)
    if not holders or steps_per_s <= 0:
        return inf
    free = not line.waiting_steps and any(worker.free_slots for worker in holders)
    return (0.0 if free else pool.turns * line.waiting_steps / steps_per_s) + best_finish_s(holders, steps)
