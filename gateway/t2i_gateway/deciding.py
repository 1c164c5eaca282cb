"""One request's decision: the policy's functions in their order, over one snapshot of cache and pool. Pure."""

from dataclasses import dataclass

from t2i_cache.catalogue import Neighbour
from t2i_gateway.asking import Asked
from t2i_policy.features import read_prompt
from t2i_policy.levels import Ladder, Level
from t2i_policy.pool import PoolSpec
from t2i_policy.profile import LevelProfile
from t2i_policy.serving import Served, ServedReason, Times, choose_served_level, pressure
from t2i_policy.views import PoolView, best_finish_s
from t2i_policy.wanted import Neighbourhood, Option, Wanted, choose_wanted_level, eligible_options
from t2i_protos.v1 import gateway_pb2, level_pb2


@dataclass(frozen=True, slots=True)
class Decided:
    """What was decided for one request, and from what."""

    near: Neighbourhood
    options: tuple[Option, ...]
    wanted: Wanted
    served: Served
    pressed: float

    @property
    def reason(self) -> str:
        """Why the served level is what it is: the load's or the deadline's reason, else the prompt's."""
        return self.wanted.reason if self.served.reason is ServedReason.AS_WANTED else self.served.reason

    @property
    def quality_percent(self) -> float:
        """Expected quality of the served level, percent of exact."""
        return 100 * (1 - self.served.expected_loss)


@dataclass(frozen=True, slots=True)
class Rules:
    """What decisions are made by: the pool's ladder and SLO, and the measured profile."""

    ladder: Ladder
    profile: LevelProfile
    slo_s: float

    @classmethod
    def of(cls, spec: PoolSpec, profile: LevelProfile) -> "Rules":
        """The rules of a pool."""
        return cls(spec.ladder, profile, spec.slo.latency_milliseconds / 1e3)

    def decide(self, asked: Asked, neighbour: Neighbour | None, pool: PoolView, left_s: float) -> Decided:
        """Wanted level, then served level; `left_s` seconds to the request's deadline."""
        near = _neighbourhood(neighbour, asked.prompt)
        options = eligible_options(self.ladder, self.profile, near, asked.limits)
        wanted = choose_wanted_level(self.ladder, options, near, asked.limits)
        exact_s = best_finish_s(pool.ready, self.ladder.base_steps)
        pressed = pressure(pool, self.slo_s, min(exact_s, self.slo_s))
        served = choose_served_level(wanted, options, pool, asked.limits, Times(left_s, pressed))
        return Decided(near, options, wanted, served, pressed)

    def label(self, level: Level) -> str:
        """The level's short name."""
        return level.label(self.ladder.base_steps)


def _neighbourhood(neighbour: Neighbour | None, prompt: str) -> Neighbourhood:
    features = read_prompt(prompt)
    if neighbour is None:
        return Neighbourhood(None, frozenset(), features)
    return Neighbourhood(neighbour.similarity, neighbour.steps, features)


def to_level_message(level: Level) -> level_pb2.Level:
    """A level on the wire."""
    return level_pb2.Level(skipped_steps=level.skipped_steps, num_inference_steps=level.num_inference_steps)


def to_decision_message(decided: Decided) -> gateway_pb2.Decision:
    """The decision with its reason in a word and in a sentence."""
    return gateway_pb2.Decision(
        wanted=to_level_message(decided.wanted.level),
        served=to_level_message(decided.served.level),
        reason=decided.reason,
        message=_sentence(decided),
        expected_quality_percent=decided.quality_percent,
    )


def _sentence(decided: Decided) -> str:
    wanted, served = decided.wanted, decided.served
    if decided.near.similarity is None:
        near = "no similar prompt is cached"
    else:
        near = f"the nearest cached prompt has similarity {decided.near.similarity:.2f}"
    says = f"{near}; {_phrase(wanted.level)} is the cheapest harmless level"
    if served.reason is ServedReason.LOAD:
        says += f"; served with {_phrase(served.level)} because the backlog takes {decided.pressed:.0%} of the slack"
    elif served.reason is ServedReason.DEADLINE:
        says += f"; served with {_phrase(served.level)} to meet the deadline"
    return f"{says}; at most {100 * served.expected_loss:.1f}% of quality is expected to be lost"


def _phrase(level: Level) -> str:
    if level.skipped_steps:
        return f"skipping {level.skipped_steps} of {level.num_inference_steps} steps"
    return f"{level.num_inference_steps} steps"
