"""A streak of failures: is the worker to blame for requests that fail on it, or are the requests?

A request that fails on a worker is tried on another one. What comes of that tells whose fault it was:

    Blame.WORKERS   another worker drew it                     counts 1, every time
    Blame.OPEN      no other worker has tried it (yet)         counts 1, once for each prompt
    Blame.SHARED    it failed on another sound worker too      counts 1/2, once for each prompt

    the worker is failing from a sum of FAILURES_IN_A_ROW on

Any image that the worker draws ends the streak. So a bad prompt costs no worker its place, however often it is sent,
while the worker draws others. And a pool whose workers all fail everything is known by twice as many prompts.
It must never count what a client did: bad fields, a cancel, too short a deadline.
"""

from dataclasses import dataclass
from enum import StrEnum

FAILURES_IN_A_ROW = 3


class Blame(StrEnum):
    """Whose fault a failure is, as far as is known."""

    WORKERS = "Workers"
    OPEN = "Open"
    SHARED = "Shared"


@dataclass(frozen=True, slots=True)
class FailureStreak:
    """Failures since the last image: how many are the worker's own, and the prompts of the others by their hash. No
    more are kept than it takes to be failing, the newest ones."""

    own: int = 0
    open: tuple[int, ...] = ()
    shared: tuple[int, ...] = ()

    @property
    def is_failing(self) -> bool:
        """True if the worker is to be left out."""
        return 2 * (self.own + len(self.open)) + len(self.shared) >= 2 * FAILURES_IN_A_ROW

    def failed(self, prompt: int, blame: Blame) -> "FailureStreak":
        """The prompt failed, or more became known of its failure."""
        still_open = tuple(one for one in self.open if one != prompt)
        match blame:
            case Blame.WORKERS:
                return FailureStreak(min(FAILURES_IN_A_ROW, self.own + 1), still_open, self.shared)
            case Blame.SHARED:
                others = tuple(one for one in self.shared if one != prompt)
                return FailureStreak(self.own, still_open, (*others, prompt)[-2 * FAILURES_IN_A_ROW :])
            case Blame.OPEN:
                if prompt in self.shared:
                    return self  # known as a bad one
                return FailureStreak(self.own, (*still_open, prompt)[-FAILURES_IN_A_ROW:], self.shared)
