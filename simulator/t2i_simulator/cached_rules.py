"""Rules with a cache: what depends on the prompt alone is decided once per similarity band, stored steps and limits.

`Rules.judge` is pure and only compares the similarity with the edges of the profile's bands. So prompts of one band
with the same stored steps and limits get equal answers; a test compares cached with uncached answers.
A learned predictor reads the similarity itself, so with one nothing is cached.
"""

import bisect
from dataclasses import dataclass, field

from t2i_policy.level import Ladder
from t2i_policy.profile import LevelProfile
from t2i_policy.request.decide import JudgedPrompt, Rules, build_rules
from t2i_policy.request.options import Limits, Neighbourhood
from t2i_simulator.scenario import ServiceTarget

MAX_CACHED = 100_000


@dataclass(frozen=True, slots=True)
class CachedRules(Rules):
    edges: tuple[float, ...] = ()
    cached: dict[tuple[int | None, frozenset[int], bool, Limits], JudgedPrompt] = field(
        default_factory=dict, compare=False
    )

    def judge(self, near: Neighbourhood, limits: Limits) -> JudgedPrompt:
        if self.profile.predictor is not None:
            return Rules.judge(self, near, limits)
        band = None if near.similarity is None else bisect.bisect_right(self.edges, near.similarity)
        key = band, near.stored_steps, near.another_take, limits
        found = self.cached.get(key)
        if found is None:
            if len(self.cached) >= MAX_CACHED:
                self.cached.clear()
            found = self.cached[key] = Rules.judge(self, near, limits)
        return found


def build_cached_rules(ladder: Ladder, profile: LevelProfile, target: ServiceTarget) -> CachedRules:
    rules = build_rules(ladder, profile, target.slo_s, target.max_loss, target.harmless_loss)
    edges = sorted(
        {
            edge
            for bands in profile.bands.values()
            for band in bands
            for edge in (band.similarity_min, band.similarity_max)
        }
    )
    return CachedRules(rules.ladder, rules.profile, rules.slo_s, rules.classes, rules.tolerance, edges=tuple(edges))
