"""Compute saved by the cache under each eviction policy: `make bench-eviction` -> a page, a plot, a JSON.

Real prompts in order (DiffusionDB's first 4,000 in our figures) and made-up sessions, through the real catalogue. The
shape and the constants of our policy were chosen on the first half of the real prompts; the second half, from an empty
cache, and the sessions are reported apart.
"""

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bench.eviction.limit import Clairvoyant, bound_percent, possible_uses
from bench.eviction.page import CLAIRVOYANT, OURS, write_report
from bench.eviction.replay import LADDER, PromptSequence, StoringRule, replay, saved_percent
from bench.kit.arguments import PROMPTS, BenchParser
from bench.kit.machine import machine_line
from bench.kit.made_up_sessions import make_sessions
from bench.kit.output import progress, write_json
from bench.kit.prompts import embed_prompts, prompt_lines
from t2i_policy.eviction import CachedItem, EvictionPolicy
from t2i_policy.steps_at_stake import FRESH_WORTH, SILENCE_POWER, StepsAtStake
from t2i_simulator.rivals.eviction import FIFO, LCBFU, LRU

SHARES_PERCENT = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
RULES = (StoringRule.FULL_RUNS, StoringRule.EVERY_RUN)
SPACINGS_S = (0.1, 1.0, 100.0)
SEED = 7
UNLIMITED = 1 << 30
KNOWN: dict[str, Callable[[], EvictionPolicy]] = {"LCBFU": LCBFU, "LRU": LRU, "FIFO": FIFO}
OWN_WORTH = {StoringRule.FULL_RUNS: FRESH_WORTH, StoringRule.EVERY_RUN: 0.0}  # what the constant means under each rule
CONSTANTS = ((0.0, 1.0), (0.0, 1.25), (0.0, 1.5), (0.25, 1.25), (0.5, 1.0), (0.5, 1.25), (0.5, 1.5), (1.0, 1.25))
TRIED_PERCENT = 2.0  # of cache, where constants and clocks are tried
SavedSteps = npt.NDArray[np.int64]
PARSER = BenchParser(__doc__, "eviction", quick={"made_up": 300}, page=True)
PARSER.add_input(PROMPTS)
PARSER.add_argument("--made-up", type=int, default=2000, help="prompts of made-up sessions")


class StakeConstants(NamedTuple):
    """Of our policy: fresh worth, and silence power."""

    fresh_worth: float
    silence_power: float


@dataclass(frozen=True, slots=True)
class EvictionCase:
    """One replay. `constants` are those of our policy, None for the default under the rule."""

    workload: PromptSequence
    rule: StoringRule
    policy: str
    share_percent: float
    spacing_s: float = 1.0
    constants: StakeConstants | None = None

    @property
    def capacity_items(self) -> int:
        """At least one prompt's ladder."""
        return max(len(LADDER), round(self.workload.num_items * self.share_percent / 100.0))

    def build_policy(self) -> EvictionPolicy:
        if self.policy == CLAIRVOYANT:
            return Clairvoyant(self.workload, self.spacing_s)
        if self.policy == OURS:
            return StepsAtStake(*(self.constants or (OWN_WORTH[self.rule], SILENCE_POWER)))
        return KNOWN[self.policy]()

    def run(self) -> SavedSteps:
        return replay(self.workload, self.build_policy(), self.capacity_items, self.rule, self.spacing_s)

    def row(self, saved: SavedSteps) -> dict[str, object]:
        return {
            "workload": self.workload.name,
            "rule": self.rule.value,
            "policy": self.policy,
            "cache_percent": self.share_percent,
            "cache_items": self.capacity_items,
            "spacing_s": self.spacing_s,
            "constants": self.constants,
            "saved_percent": saved_percent(saved),
            "hit_percent": float(100.0 * (saved > 0).mean()),
        }


_cases: list[EvictionCase] = []  # of one child process: sent once, not with every call


def _take_cases(cases: list[EvictionCase]) -> None:
    _cases[:] = cases


def _run_place(place: int) -> SavedSteps:
    return _cases[place].run()


def run_all(cases: Sequence[EvictionCase]) -> list[SavedSteps]:
    """In the order of `cases`, on every core."""
    os.environ["OMP_NUM_THREADS"] = "1"  # the children's; one thread each
    found = []
    with ProcessPoolExecutor(os.cpu_count(), initializer=_take_cases, initargs=(list(cases),)) as processes:
        for saved in processes.map(_run_place, range(len(cases))):
            found.append(saved)
            progress("replays", len(found), len(cases))
    return found


def make_workloads(real: Sequence[str], num_made_up: int) -> list[PromptSequence]:
    """All real prompts, their second half alone, and made-up sessions."""
    made_up = make_sessions(num_made_up, SEED)
    vectors = embed_prompts(real).in_order
    is_read = np.abs(vectors).max(axis=1) > 0  # the others are like no other prompt
    texts, vectors = [prompt for prompt, read in zip(real, is_read, strict=True) if read], vectors[is_read]
    half = len(texts) // 2
    return [
        PromptSequence.of("all real prompts", texts, vectors),
        PromptSequence.of("second half only", texts[half:], vectors[half:]),
        PromptSequence.of("made-up sessions", made_up, embed_prompts(made_up).in_order),
    ]


def unlimited_rows(workloads: Sequence[PromptSequence]) -> list[dict[str, object]]:
    """What a cache without a limit saves, by storing rule: no eviction at all."""
    return [
        {"workload": one.name, "rule": rule.value, "saved_percent": saved_percent(replay(one, LRU(), UNLIMITED, rule))}
        for one in workloads
        for rule in StoringRule
    ]


def bound_rows(workloads: Sequence[PromptSequence]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for one in workloads:
        uses = possible_uses(one)
        for share in SHARES_PERCENT:
            capacity = EvictionCase(one, StoringRule.FULL_RUNS, "LRU", share).capacity_items
            bound = bound_percent(uses, capacity)
            rows.append({"workload": one.name, "cache_percent": share, "bound_percent": bound})
    return rows


def rank_ms(items: int = 100_000) -> dict[str, float]:
    """Milliseconds of one ranking of so many latents, best of three."""
    rng = np.random.default_rng(0)
    prompts = [
        [CachedItem(number, step, 1, 1 + int(rng.random() < 0.1), number, number + 1.0) for step in LADDER]
        for number in range(items // len(LADDER))
    ]
    took: dict[str, float] = {}
    for name, policy in ((OURS, StepsAtStake()), *((name, build()) for name, build in KNOWN.items())):
        times = []
        for _ in range(3):
            began = time.perf_counter()
            policy.ranked(prompts, float(items))
            times.append(1e3 * (time.perf_counter() - began))
        took[name] = min(times)
    return took


def lead_rows(cases: Sequence[EvictionCase], saved: Sequence[SavedSteps]) -> list[dict[str, object]]:
    """Ours minus the best of the known policies, with the standard error of 20 blocks of prompts."""
    by_case = {(c.workload.name, c.rule, c.share_percent, c.policy): s for c, s in zip(cases, saved, strict=True)}
    rows: list[dict[str, object]] = []
    for (workload, rule, share, policy), ours in by_case.items():
        if policy != OURS:
            continue
        rivals = {name: by_case[workload, rule, share, name] for name in KNOWN}
        best = max(rivals, key=lambda name: int(rivals[name].sum()))
        blocks = [saved_percent(block) for block in np.array_split(ours - rivals[best], 20)]
        rows.append(
            {
                "workload": workload,
                "rule": rule.value,
                "cache_percent": share,
                "best_rival": best,
                "lead_percent": float(np.mean(blocks)),
                "lead_stderr": float(np.std(blocks, ddof=1) / np.sqrt(len(blocks))),
            }
        )
    return rows


def main() -> None:
    options = PARSER.parse()
    began = time.monotonic()
    workloads = make_workloads(prompt_lines(options.prompts), options.made_up)
    half, policies = workloads[1], (OURS, *KNOWN, CLAIRVOYANT)
    tried = [StakeConstants(*pair) for pair in CONSTANTS]
    cases = {
        "rows": [EvictionCase(w, r, p, s) for w in workloads for r in RULES for s in SHARES_PERCENT for p in policies],
        "clock_rows": [EvictionCase(half, r, OURS, TRIED_PERCENT, spacing_s=s) for r in RULES for s in SPACINGS_S],
        "constant_rows": [EvictionCase(half, r, OURS, TRIED_PERCENT, constants=c) for r in RULES for c in tried],
    }
    saved = {name: run_all(of_one) for name, of_one in cases.items()}
    document = {
        "prompts": len(workloads[0].entries),
        **{name: [case.row(steps) for case, steps in zip(cases[name], saved[name], strict=True)] for name in cases},
        "lead_rows": lead_rows(cases["rows"], saved["rows"]),
        "bound_rows": bound_rows(workloads),
        "unlimited_rows": unlimited_rows(workloads),
        "rank_ms_1e5": rank_ms(),
        "took_s": time.monotonic() - began,
    }
    write_json(options.out, document)
    write_report(document, machine_line(), options.results)


if __name__ == "__main__":
    main()
