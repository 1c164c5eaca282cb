"""Demand: how much traffic there is of each prompt class, smoothed, and never stale when idle.

Exponentially decayed counts (half-life in seconds): a burst shows at once, silence decays to zero by the clock alone.
A second, slower memory gives the trend: the rate now beside the rate of a while ago.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import exp2, log
from types import MappingProxyType

Counts = Mapping[str, float]
NOTHING: Counts = MappingProxyType({})
SLOWER = 4.0  # the slow memory's half-life, in fast ones
MAX_AHEAD = 16.0  # half-lives after which the counts are brought up to the present


@dataclass(frozen=True, slots=True)
class Demand:
    """Counts by class name, decayed to `at_s`. A later request is added as the larger count that decays to it.

    `half_life_s` > 0.
    """

    half_life_s: float = 30.0
    at_s: float = 0.0
    counts: Counts = field(default_factory=lambda: NOTHING)
    slow: Counts = field(default_factory=lambda: NOTHING)
    latest_s: float = 0.0  # of the requests; a clock that steps back reads as this

    def counted(self, name: str, now_s: float, times: float = 1.0) -> "Demand":
        """The demand after `times` more requests of class `name` at `now_s`.

        Every request comes here, so not all counts are decayed each time: the new ones are added at what decays to
        them (forward decay; Cormode et al., ICDE 2009), until that grows large.
        """
        past_half_lives = self._past_s(now_s) / self.half_life_s
        if past_half_lives > MAX_AHEAD:
            return self.as_of(now_s).counted(name, now_s, times)
        fast, slow = dict(self.counts), dict(self.slow)
        fast[name] = fast.get(name, 0.0) + times * exp2(past_half_lives)
        slow[name] = slow.get(name, 0.0) + times * exp2(past_half_lives / SLOWER)
        counts, slower = MappingProxyType(fast), MappingProxyType(slow)
        return Demand(self.half_life_s, self.at_s, counts, slower, max(now_s, self.latest_s))

    def times(self, factor: float) -> "Demand":
        """The demand of `factor` such gateways: what one sees of a pool that clients spread over evenly."""
        counts = MappingProxyType({name: factor * count for name, count in self.counts.items()})
        slow = MappingProxyType({name: factor * count for name, count in self.slow.items()})
        return Demand(self.half_life_s, self.at_s, counts, slow, self.latest_s)

    def as_of(self, now_s: float) -> "Demand":
        """The same demand with its counts decayed to `now_s`."""
        fast, slow = self._decayed(now_s)
        at_s = self.at_s + self._past_s(now_s)
        return Demand(self.half_life_s, at_s, MappingProxyType(fast), MappingProxyType(slow), self.latest_s)

    @classmethod
    def from_rates(cls, rates_rps: Counts, earlier_rps: float, now_s: float, half_life_s: float = 30.0) -> "Demand":
        """The demand that reads these rates at `now_s`: what others counted and smoothed. The slow memory is theirs as
        a total, spread as the fast one is.
        """
        fast = half_life_s / log(2)
        total_rps = sum(rates_rps.values())
        scale = SLOWER * fast * (earlier_rps / total_rps if total_rps > 0 else 0.0)
        counts = MappingProxyType({name: rate * fast for name, rate in rates_rps.items()})
        slow = MappingProxyType({name: rate * scale for name, rate in rates_rps.items()})
        return cls(half_life_s, now_s, counts, slow)

    def rate_rps(self, now_s: float) -> float:
        """Requests a second, smoothed: a steady rate r reads r after a few half-lives."""
        return sum(self._decayed(now_s)[0].values()) * log(2) / self.half_life_s

    def rates_rps(self, now_s: float) -> dict[str, float]:
        """The same by class; classes that have faded to nothing are left out."""
        scale = log(2) / self.half_life_s
        return {name: count * scale for name, count in self._decayed(now_s)[0].items() if count * scale > 1e-6}

    def earlier_rps(self, now_s: float) -> float:
        """The slow memory's rate: about what it was `SLOWER` half-lives ago."""
        return sum(self._decayed(now_s)[1].values()) * log(2) / (SLOWER * self.half_life_s)

    def wanted_fractions(self, now_s: float) -> Mapping[str, float]:
        """Share of the traffic of each class (the paper's h); sums to 1, empty when there was none."""
        counts = self._decayed(now_s)[0]
        total = sum(counts.values())
        return {name: count / total for name, count in counts.items()} if total > 0 else {}

    def _decayed(self, now_s: float) -> tuple[dict[str, float], dict[str, float]]:
        past_s = self._past_s(now_s)
        fast = exp2(-past_s / self.half_life_s)
        slow = exp2(-past_s / (SLOWER * self.half_life_s))
        return (
            {name: count * fast for name, count in self.counts.items()},
            {name: count * slow for name, count in self.slow.items()},
        )

    def _past_s(self, now_s: float) -> float:
        return max(0.0, max(now_s, self.latest_s) - self.at_s)
