"""Foreign load: what other gateways have sent to a worker that this gateway sends to as well.

A gateway knows its own leases at once. Of the others it knows what the worker reports, which includes its own:

    foreign requests = max(0, running + waiting as reported - own requests there)
    foreign steps    = max(0, steps owed as reported        - own steps there)

Both are taken when a report comes and stand until the next one, a fraction of a second. Ours may have changed since it
was written: a negative difference is a lease that it does not know yet, so it counts as none.
It must count steps along with requests: full slots that owe nothing look as if they would be free at once.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HeldLoad:
    """Requests at a worker, and the denoising steps that it owes to them."""

    requests: int = 0
    steps: int = 0


def foreign_load(reported: HeldLoad, own: HeldLoad) -> HeldLoad:
    """The part of a worker's report that is not ours."""
    return HeldLoad(max(0, reported.requests - own.requests), max(0, reported.steps - own.steps))
