"""What became of the requests of the last minute: a window bounded in time and in number, and what it adds up to.

Pure: the time is an argument. The page shows it, so it holds no prompt and no tenant.
"""

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from t2i_policy.level import Level

WINDOW_S = 60
MAX_OUTCOMES = 8192


@dataclass(frozen=True, slots=True)
class RecentOutcome:
    """How one image ended. `level` None = it was refused, or it failed; then the rest says nothing. `quality_percent`
    None: nobody measured it.
    """

    ended_s: float
    level: Level | None
    took_s: float = 0.0
    quality_percent: float | None = None


@dataclass(frozen=True, slots=True)
class RecentSummary:
    """`window_s`: how far back it reaches. None where nothing was served.

    `seconds`: for each second, oldest first, how many were served at each level, and last how many were refused.
    """

    window_s: float
    served: tuple[int, ...]
    refused: int
    p95_s: float | None
    mean_quality_percent: float | None
    from_cache_fraction: float | None
    seconds: tuple[tuple[int, ...], ...]


class RecentOutcomes:
    """The outcomes of one gateway. Beyond MAX_OUTCOMES the oldest go, so that a fast pool's window is shorter."""

    def __init__(self) -> None:
        self._outcomes: deque[RecentOutcome] = deque(maxlen=MAX_OUTCOMES)

    def add(self, outcome: RecentOutcome) -> None:
        self._outcomes.append(outcome)

    def summary(self, now_s: float, levels: Sequence[Level]) -> RecentSummary:
        """What the last WINDOW_S add up to. A level that is none of `levels` counts as its model's of next
        higher cost."""
        self._forget(now_s - WINDOW_S)
        drawn = [one for one in self._outcomes if one.level is not None]
        full = len(self._outcomes) == MAX_OUTCOMES
        columns = len(levels) + 1
        counts = Counter((self._second(one, now_s), _column(one.level, levels)) for one in self._outcomes)
        return RecentSummary(
            window_s=now_s - self._outcomes[0].ended_s if full else WINDOW_S,
            served=tuple(sum(counts[second, at] for second in range(WINDOW_S)) for at in range(len(levels))),
            refused=len(self._outcomes) - len(drawn),
            p95_s=_p95([one.took_s for one in drawn]),
            mean_quality_percent=_mean([one.quality_percent for one in drawn if one.quality_percent is not None]),
            from_cache_fraction=_mean([float(one.level is not None and one.level.needs_latent) for one in drawn]),
            seconds=tuple(tuple(counts[second, at] for at in range(columns)) for second in range(WINDOW_S)),
        )

    def _forget(self, before_s: float) -> None:
        while self._outcomes and self._outcomes[0].ended_s <= before_s:
            self._outcomes.popleft()

    @staticmethod
    def _second(outcome: RecentOutcome, now_s: float) -> int:
        return max(0, WINDOW_S - 1 - int(now_s - outcome.ended_s))


def _column(level: Level | None, levels: Sequence[Level]) -> int:
    """Where a level is counted; the last column is for what was not served. `levels`: exact first, by falling cost,
    model by model."""
    if level is None:
        return len(levels)
    if level in levels:
        return levels.index(level)
    dearer = (at for at, one in enumerate(levels) if one.model == level.model and one.cost >= level.cost)
    return max(dearer, default=0)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _p95(values: Sequence[float]) -> float | None:
    return sorted(values)[ceil(0.95 * len(values)) - 1] if values else None
