"""What became of every request, and what the slow loop did."""

from collections import Counter
from dataclasses import dataclass, field
from enum import IntEnum

from t2i_policy.level import Level


class Fate(IntEnum):
    """Every request ends in exactly one of these but the first: offered = served + shed + failed."""

    OPEN = 0
    SERVED = 1  # the image came, in time or late
    SHED = 2  # refused on arrival
    EXPIRED = 3  # failed: its deadline passed while it waited, or its client gave up
    LOST = 4  # failed: on every worker it may try, or no worker was left


@dataclass(frozen=True, slots=True)
class Settled:
    """One new plan: when, workers by level, what it expected (images/s), and how many workers changed level for it."""

    at_s: float
    workers: dict[Level, int]
    demand_rps: float
    shed_rps: float
    moves: int


@dataclass(slots=True)
class Outcomes:
    """Columns by request number, in order of arrival. Times in virtual seconds; `levels` and `steps` run of
    the served, `similarity` of all (-2 = no neighbour), `repeated` of all: their picture was asked for before.
    """

    arrived_s: list[float]
    finished_s: list[float]
    fates: list[Fate]
    levels: list[Level | None]
    similarity: list[float]
    steps: list[int]
    retries: list[int]
    repeated: list[bool]
    refusals: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    settled: list[Settled] = field(default_factory=list)
    ejections: int = 0

    @classmethod
    def begin(cls, arrived_s: list[float]) -> "Outcomes":
        """All open."""
        num = len(arrived_s)
        return cls(
            arrived_s, [0.0] * num, [Fate.OPEN] * num, [None] * num, [-2.0] * num, [0] * num, [0] * num, [False] * num
        )
