"""Demand: how much traffic there is of each prompt class, smoothed, and never stale when idle.

Exponentially decayed counts (half-life in seconds): a burst shows at once, silence decays to zero by the clock alone.
"""

from collections.abc import Mapping
from dataclasses import field
from math import exp2, log
from types import MappingProxyType

from t2i_policy.quick_dataclass import quick_dataclass

Counts = Mapping[str, float]
NOTHING: Counts = MappingProxyType({})
MAX_AHEAD = 16.0  # half-lives after which the counts are brought up to the present


@quick_dataclass(frozen=True, slots=True)
class Demand:
    """Counts by class name, decayed to `at_s`. A later request is added as the larger count that decays to it.

    `half_life_s` > 0.
    """

    half_life_s: float = 30.0
    at_s: float = 0.0
    counts: Counts = field(default_factory=lambda: NOTHING)
    latest_s: float = 0.0  # of the requests; a clock that steps back reads as this

    def counted(self, name: str, now_s: float, times: float = 1.0) -> "Demand":
        """The demand after `times` more requests of class `name` at `now_s`.

        Every request comes here, so not all counts are decayed each time: the new ones are added at what decays to
        them (forward decay; Cormode et al., ICDE 2009), until that grows large.
        """
        past_half_lives = self._past_s(now_s) / self.half_life_s
        if past_half_lives > MAX_AHEAD:
            return self.as_of(now_s).counted(name, now_s, times)
        counts = {**self.counts, name: self.counts.get(name, 0.0) + times * exp2(past_half_lives)}
        return Demand(self.half_life_s, self.at_s, counts, max(now_s, self.latest_s))

    def times(self, factor: float) -> "Demand":
        """The demand of `factor` such gateways: what one sees of a pool that clients spread over evenly."""
        counts = {name: factor * count for name, count in self.counts.items()}
        return Demand(self.half_life_s, self.at_s, counts, self.latest_s)

    def as_of(self, now_s: float) -> "Demand":
        """The same demand with its counts decayed to `now_s`."""
        at_s = self.at_s + self._past_s(now_s)
        return Demand(self.half_life_s, at_s, self._decayed(now_s), self.latest_s)

    def rate_rps(self, now_s: float) -> float:
        """Requests a second, smoothed: a steady rate r reads r after a few half-lives."""
        return sum(self._decayed(now_s).values()) * log(2) / self.half_life_s

    def rates_rps(self, now_s: float) -> dict[str, float]:
        """The same by class; classes that have faded to nothing are left out."""
        scale = log(2) / self.half_life_s
        return {name: count * scale for name, count in self._decayed(now_s).items() if count * scale > 1e-6}

    def _decayed(self, now_s: float) -> dict[str, float]:
        share = exp2(-self._past_s(now_s) / self.half_life_s)
        return {name: count * share for name, count in self.counts.items()}

    def _past_s(self, now_s: float) -> float:
        return max(0.0, max(now_s, self.latest_s) - self.at_s)
