"""What became of every request, and what the planning loop did."""

from collections import Counter
from dataclasses import dataclass, field
from enum import IntEnum

from t2i_policy.level import Level


class Fate(IntEnum):
    """A request ends in exactly one of these, except OPEN: offered = served + shed + failed."""

    OPEN = 0
    SERVED = 1  # the image came, in time or late
    SHED = 2  # refused on arrival
    EXPIRED = 3  # failed: its turn came too late for its deadline, or its client gave up
    LOST = 4  # failed: every worker that it may try was lost, or no worker was left


@dataclass(frozen=True, slots=True)
class PlanRecord:
    """A new plan: workers by level, the rates that it expected, and how many workers changed level for it."""

    at_s: float
    workers: dict[Level, int]
    demand_rps: float
    shed_rps: float
    moves: int


@dataclass(frozen=True, slots=True)
class MadeMove:
    """A worker of the group began to give up a model for another."""

    at_s: float
    group: str
    from_model: str
    to_model: str


@dataclass(slots=True)
class Outcomes:
    """Columns by request number, in order of arrival; times are virtual.

    `levels` and `steps` hold what ran for served requests. `similarity` is -2 without a neighbour. `repeated` tells
    that the same prompt came before.
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
    plans: list[PlanRecord] = field(default_factory=list)
    ejections: int = 0
    made_moves: list[MadeMove] = field(default_factory=list)

    @classmethod
    def begin(cls, arrived_s: list[float]) -> "Outcomes":
        """The outcomes before the simulation: every request is open."""
        num = len(arrived_s)
        return cls(
            arrived_s=arrived_s,
            finished_s=[0.0] * num,
            fates=[Fate.OPEN] * num,
            levels=[None] * num,
            similarity=[-2.0] * num,
            steps=[0] * num,
            retries=[0] * num,
            repeated=[False] * num,
        )
