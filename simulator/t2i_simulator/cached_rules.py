"""Rules that remember: what depends on the prompt alone is decided once per similarity band, stored steps and limits.

`Rules.judge` is pure, and reads the similarity only against the edges of the profile's bands, so prompts of one band
with the same stored steps and limits get equal answers. A test holds the two together. A learned predictor reads the
similarity itself, so with one nothing is remembered.
"""

import bisect
from dataclasses import dataclass, field

from t2i_policy.level import Ladder
from t2i_policy.profile import LevelProfile
from t2i_policy.request.decide import Rules, build_rules
from t2i_policy.request.options import Limits, Neighbourhood, Option, WantedLevel
from t2i_simulator.scenario import ServiceTarget

Judged = tuple[tuple[Option, ...], WantedLevel, str]
MAX_REMEMBERED = 100_000


@dataclass(frozen=True, slots=True)
class RememberingRules(Rules):
    edges: tuple[float, ...] = ()
    known: dict[tuple[int | None, frozenset[int], bool, Limits], Judged] = field(default_factory=dict, compare=False)

    def judge(self, near: Neighbourhood, limits: Limits) -> Judged:
        """As `Rules.judge`."""
        if self.profile.predictor is not None:
            return Rules.judge(self, near, limits)
        band = None if near.similarity is None else bisect.bisect_right(self.edges, near.similarity)
        key = band, near.stored_steps, near.another_take, limits
        found = self.known.get(key)
        if found is None:
            if len(self.known) >= MAX_REMEMBERED:
                self.known.clear()
            found = self.known[key] = Rules.judge(self, near, limits)
        return found


def remembering_rules(ladder: Ladder, profile: LevelProfile, target: ServiceTarget) -> RememberingRules:
    """`build_rules` with a memory."""
    rules = build_rules(ladder, profile, target.slo_s, target.max_loss, target.harmless_loss)
    edges = sorted({edge for band in profile.losses for edge in (band.similarity_min, band.similarity_max)})
    return RememberingRules(
        rules.ladder, rules.profile, rules.slo_s, rules.classes, rules.tolerance, edges=tuple(edges)
    )
