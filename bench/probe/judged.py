"""What looks are worth: how well they foresee losses, and what sharing steps out by them saves from falling below."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.kit.caption_runs import Floats
from bench.probe.decided import Rule, at_mean_steps, by_chance, by_predictions, with_second_thoughts
from bench.probe.drawn import EXACT, Document
from bench.probe.fitted import Numbers, area_under_curve, explained, held_out, with_error
from bench.probe.forks import LookedRun
from bench.starts.compared import MeanWithError

FLOOR = 10.0  # points of score that an image may lose against its exact one
#: What a probe is shown. The first is known before the run begins; the last ones see what no worker would.
SHOWN: dict[str, tuple[str, ...]] = {
    "before": ("before",),
    "motion": ("motion",),
    "look": ("before", "motion", "estimate"),
    "look and inner": ("before", "motion", "estimate", "inner"),
    "look and judge": ("before", "motion", "estimate", "judged"),
}
BEFORE, PROBE, JUDGED = "before", "look and inner", "look and judge"
CHANCE, KNOWN, ORACLE = "chance", "known before", "oracle"
POINTS = 13  # of a curve


@dataclass(frozen=True, slots=True)
class LooksDrawn:
    """Of all blocks; each block is a fold. Losses are in points of score, 100 is perfect."""

    folds: Numbers
    exact: Floats
    losses: dict[str, Floats]
    looks: dict[str, dict[str, Floats]]
    before: Floats

    @classmethod
    def of(cls, blocks: Sequence[Document]) -> "LooksDrawn":
        def joined(pick: Any) -> Floats:
            return np.concatenate([np.asarray(pick(block), float) for block in blocks])

        def group(look: str, name: str) -> Floats:
            return joined(lambda block: block["looks"][look][name])

        exact = 100 * joined(lambda block: block["quality"][EXACT])
        names, looks = blocks[0]["quality"], blocks[0]["looks"]
        return cls(
            np.concatenate([np.full(len(block["similarity"]), at) for at, block in enumerate(blocks)]),
            exact,
            {name: exact - 100 * joined(lambda block: block["quality"][name]) for name in names},  # noqa: B023
            {look: {name: group(look, name) for name in groups} for look, groups in looks.items()},
            np.column_stack([joined(lambda block: block["vector"]), joined(lambda block: block["similarity"])]),
        )

    def shown(self, look: str, names: Sequence[str]) -> list[Floats]:
        """Groups of features [n,k]."""
        groups = {"before": self.before, **self.looks[look]}
        return [groups[name] for name in names]

    def below(self, way: str) -> Floats:
        """Whether each image lost more than the floor allows, as 0 or 1."""
        return (self.losses[way] > FLOOR).astype(float)


@dataclass(frozen=True, slots=True)
class JudgedFork:
    """One look.

    `foreseen` is of the served way: explained share of losses, and area under the curve, by what a probe is shown.
    `below` and `lost`: percent of images below the floor, and points lost, by who decides, all at the same mean of
    steps. `better`: percent below the floor less than the best of those that decide without a look, in pairs.
    `curves`: steps and percent below the floor, by who decides. `fixed`: the same of one way for all."""

    fork: LookedRun
    foreseen: dict[str, tuple[MeanWithError, MeanWithError]]
    below: dict[str, MeanWithError]
    lost: dict[str, MeanWithError]
    rival: str
    better: dict[str, MeanWithError]
    curves: dict[str, list[tuple[float, float]]]
    fixed: dict[str, tuple[int, float]]


@dataclass(frozen=True, slots=True)
class Deciders:
    """All who share the steps of a look's runs out; `actual` and what probes predict of it, [n,k] by `ways`."""

    fork: LookedRun
    ways: Sequence[str]
    actual: Floats
    predicted: Mapping[str, Floats]

    def decide(self, mean_steps: float) -> dict[str, Floats]:
        """What each image gets [n], by who decides."""
        alone = {self.ways.index(way): cost for way, cost in self.fork.alone.items()}
        endings = {self.ways.index(way): cost for way, cost in self.fork.endings.items()}
        served = self.ways.index(self.fork.served)

        def after(name: str) -> Rule:
            """A run that begins anew loses steps, so what is known before is asked first."""
            second = by_predictions(self.predicted[name], endings)
            first = by_predictions(self.predicted[BEFORE], alone)
            return with_second_thoughts(first, served, second) if self.fork.begins_anew else second

        rules = {
            KNOWN: by_predictions(self.predicted[BEFORE], alone),
            PROBE: after(PROBE),
            JUDGED: after(JUDGED),
            ORACLE: by_predictions(self.actual, {**endings, **alone}),
        }
        rows = np.arange(len(self.actual))
        found = {CHANCE: by_chance(self.actual[:, [*alone]], [*alone.values()], mean_steps)}
        for name, rule in rules.items():
            found[name] = self.actual[rows, at_mean_steps(rule, mean_steps).places]
        return found

    def curves(self) -> dict[str, list[tuple[float, float]]]:
        least = max(min(costs.values()) for costs in (self.fork.endings, self.fork.alone))
        most = min(max(costs.values()) for costs in (self.fork.endings, self.fork.alone))
        found: dict[str, list[tuple[float, float]]] = {}
        for steps in np.linspace(least, most, POINTS):
            for name, values in self.decide(float(steps)).items():
                found.setdefault(name, []).append((float(steps), 100 * float(values.mean())))
        return found


def judge_fork(drawn: LooksDrawn, fork: LookedRun) -> JudgedFork:
    ways = [*{**fork.endings, **fork.alone}]
    below = np.column_stack([drawn.below(way) for way in ways])
    losses = np.column_stack([drawn.losses[way] for way in ways])
    both = np.hstack([below, losses])
    halves: dict[str, list[Floats]] = {
        name: np.split(held_out(drawn.shown(fork.look, groups), both, drawn.folds), 2, 1)
        for name, groups in SHOWN.items()
    }
    served = ways.index(fork.served)
    foreseen = {
        name: (
            with_error(explained, losses[:, served], loss[:, served]),
            with_error(area_under_curve, below[:, served], under[:, served]),
        )
        for name, (under, loss) in halves.items()
    }
    for_floor = Deciders(fork, ways, below, {name: under for name, (under, _) in halves.items()})
    for_loss = Deciders(fork, ways, losses, {name: loss for name, (_, loss) in halves.items()})
    found = for_floor.decide(fork.mean_steps)
    rival = min((CHANCE, KNOWN), key=lambda name: float(found[name].mean()))
    return JudgedFork(
        fork,
        foreseen,
        {name: MeanWithError.of(100 * values) for name, values in found.items()},
        {name: MeanWithError.of(values) for name, values in for_loss.decide(fork.mean_steps).items()},
        rival,
        {name: MeanWithError.of(100 * (found[rival] - found[name])) for name in (PROBE, JUDGED, ORACLE)},
        for_floor.curves(),
        {way: (cost, 100 * float(drawn.below(way).mean())) for way, cost in fork.alone.items()},
    )
