"""The fallback: what is run where a level is asked for that this prompt cannot have.

Decided from the steps stored for the nearest prompt, the request's limits and what the profile measured. The worker
does the same when a latent turns out to be missing (`t2i_cache.fetching`): the largest stored K' <= K, else exact.
A rival that plans without looking at the prompt needs it before it can tell time and loss.

It must never answer with a latent that is not stored, a skip above the request's cap, or a level whose loss was never
measured at this similarity. It does not look at quality floors: those are a policy's business.
"""

from t2i_policy.level import Level
from t2i_policy.request.decide import Rules
from t2i_policy.request.options import BOUND_Z, Limits, Neighbourhood, Option


def runnable_option(rules: Rules, level: Level, near: Neighbourhood, limits: Limits) -> Option:
    """What is run for a request that is sent to `level`, with the bound on its loss; exact at the latest."""
    if limits.fixed_steps is not None:
        return Option(Level(0, limits.fixed_steps), 0.0)
    if limits.exact:
        return Option(rules.ladder.exact, 0.0)
    cap = level.skipped_steps if limits.max_skipped_steps is None else limits.max_skipped_steps
    stored = [k for k in near.stored_steps if 0 < k <= min(level.skipped_steps, cap)]
    skips = [Level(k, level.num_inference_steps) for k in sorted(stored, reverse=True)]
    for candidate in skips if level.needs_latent else [level]:
        loss = rules.profile.expected_loss(candidate, near.similarity, BOUND_Z)
        if loss is not None:
            return Option(candidate, loss)
    return Option(rules.ladder.exact, 0.0)
