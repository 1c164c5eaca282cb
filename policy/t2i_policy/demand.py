"""Demand: how much traffic wants each level, smoothed, and never stale when idle.

Exponentially decayed counts (half-life in seconds): a burst shows at once, silence decays to zero by the clock alone.
The paper's histogram h is `wanted_fractions`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import exp, log
from types import MappingProxyType

from t2i_policy.levels import Level


@dataclass(frozen=True, slots=True)
class Demand:
    """Decayed counts by wanted level as of `at_s`. `half_life_s` > 0."""

    half_life_s: float = 30.0
    at_s: float = 0.0
    counts: Mapping[Level, float] = field(default_factory=lambda: MappingProxyType({}))

    def counted(self, level: Level, now_s: float) -> "Demand":
        """The demand after one more request wanted `level` at `now_s`."""
        decayed = dict(self._decayed(now_s))
        decayed[level] = decayed.get(level, 0.0) + 1.0
        return Demand(self.half_life_s, max(now_s, self.at_s), MappingProxyType(decayed))

    def rate_rps(self, now_s: float) -> float:
        """Requests a second, smoothed: a steady rate r reads r after a few half-lives."""
        return sum(self._decayed(now_s).values()) * log(2) / self.half_life_s

    def wanted_fractions(self, now_s: float) -> Mapping[Level, float]:
        """Share of the traffic that wants each level; sums to 1, empty when there was none."""
        counts = self._decayed(now_s)
        total = sum(counts.values())
        return {level: count / total for level, count in counts.items()} if total > 0 else {}

    def _decayed(self, now_s: float) -> Mapping[Level, float]:
        factor = exp(-log(2) * max(0.0, now_s - self.at_s) / self.half_life_s)
        return {level: count * factor for level, count in self.counts.items()}
