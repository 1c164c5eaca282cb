"""Compute saved by the cache under each eviction policy: `make bench-eviction` -> a page, a plot, a JSON.

Real prompts in order (a file named by --prompts; DiffusionDB's first 4,000 in our figures) and made-up sessions,
through the real catalogue. The shape and the constants of our policy were chosen on the first half of the real
prompts; the second half, from an empty cache, and the sessions are reported apart.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.progress import track

from eviction_limit import Clairvoyant, bound_percent, possible_uses
from eviction_replay import LADDER, Rule, Workload, replay, saved_percent
from eviction_report import plot, render
from machine import machine_facts
from sessions import make_sessions
from t2i_policy.eviction import CachedItem, EvictionPolicy
from t2i_policy.steps_at_stake import FRESH_WORTH, SILENCE_POWER, StepsAtStake
from t2i_simulator.embedding import SentenceEncoder, embed
from t2i_simulator.rivals.eviction import FIFO, LCBFU, LRU
from t2i_simulator.similarity import Vectors
from t2i_simulator.traces import number_prompts, read_prompts

RESULTS = Path(__file__).parent / "results"
SHARES_PERCENT = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
RULES = (Rule.FULL_RUNS, Rule.EVERY_RUN)
SPACINGS_S = (0.1, 1.0, 100.0)
CHECKED_PERCENT = (2.0,)
NUM_MADE_UP, SEED = 2000, 7
UNLIMITED = 1 << 30
POLICIES: dict[str, Callable[[], EvictionPolicy]] = {"LCBFU": LCBFU, "LRU": LRU, "FIFO": FIFO}
OURS, CLAIRVOYANT = "steps at stake", "clairvoyant"
NAMES = (OURS, *POLICIES, CLAIRVOYANT)
OWN_WORTH = {Rule.FULL_RUNS: FRESH_WORTH, Rule.EVERY_RUN: 0.0}  # what the constant means under each rule
CONSTANTS = ((0.0, 1.0), (0.0, 1.25), (0.0, 1.5), (0.25, 1.25), (0.5, 1.0), (0.5, 1.25), (0.5, 1.5), (1.0, 1.25))


@dataclass(frozen=True, slots=True)
class Case:
    """One replay. `constants` are (fresh worth, silence power) of our policy, None for those of the rule."""

    workload: Workload
    rule: Rule
    policy: str
    share_percent: float
    spacing_s: float = 1.0
    constants: tuple[float, float] | None = None

    @property
    def capacity_items(self) -> int:
        """At least one prompt's ladder."""
        return max(len(LADDER), round(self.workload.num_items * self.share_percent / 100.0))

    def build_policy(self) -> EvictionPolicy:
        """The policy of this replay."""
        if self.policy == CLAIRVOYANT:
            return Clairvoyant(self.workload, self.spacing_s)
        if self.policy == OURS:
            return StepsAtStake(*(self.constants or (OWN_WORTH[self.rule], SILENCE_POWER)))
        return POLICIES[self.policy]()


def run_case(case: Case) -> npt.NDArray[np.int64]:
    """Steps saved by each prompt."""
    return replay(case.workload, case.build_policy(), case.capacity_items, case.rule, case.spacing_s)


_cases: list[Case] = []  # of one child process: sent once, not with every call


def _take_cases(cases: list[Case]) -> None:
    _cases[:] = cases


def _run_place(place: int) -> npt.NDArray[np.int64]:
    return run_case(_cases[place])


def _embedded(prompts: list[str]) -> Vectors:
    """A row a prompt; equal prompts are encoded once."""
    unique, of_line = number_prompts(prompts)
    return embed(SentenceEncoder(), unique)[of_line]


def make_workloads(path: Path) -> tuple[Workload, ...]:
    """All real prompts, their second half alone, and the made-up sessions."""
    real, made_up = read_prompts(path), make_sessions(NUM_MADE_UP, SEED)
    vectors = _embedded(real)
    read: npt.NDArray[np.bool_] = np.abs(vectors).max(axis=1) > 0  # the others are like no other prompt
    real, vectors = [prompt for prompt, whole in zip(real, read, strict=True) if whole], vectors[read]
    half = len(real) // 2
    return (
        Workload.of("all real prompts", real, vectors),
        Workload.of("second half only", real[half:], vectors[half:]),
        Workload.of("made-up sessions", made_up, _embedded(made_up)),
    )


def run_all(cases: Sequence[Case]) -> list[npt.NDArray[np.int64]]:
    """In the order of `cases`, on every core."""
    os.environ["OMP_NUM_THREADS"] = "1"  # the children's; one thread each
    with ProcessPoolExecutor(os.cpu_count(), initializer=_take_cases, initargs=(list(cases),)) as processes:
        return list(track(processes.map(_run_place, range(len(cases))), "replay", total=len(cases)))


def row_of(case: Case, saved: npt.NDArray[np.int64]) -> dict[str, object]:
    """A row of the JSON."""
    return {
        "workload": case.workload.name,
        "rule": case.rule.value,
        "policy": case.policy,
        "cache_percent": case.share_percent,
        "cache_items": case.capacity_items,
        "spacing_s": case.spacing_s,
        "constants": case.constants,
        "saved_percent": saved_percent(saved),
        "hit_percent": float(100.0 * (saved > 0).mean()),
    }


def unlimited_rows(workloads: Sequence[Workload]) -> list[dict[str, object]]:
    """What a cache without a limit saves, by storing rule: no eviction at all."""
    return [
        {"workload": one.name, "rule": rule.value, "saved_percent": saved_percent(replay(one, LRU(), UNLIMITED, rule))}
        for one in workloads
        for rule in Rule
    ]


def bound_rows(workloads: Sequence[Workload]) -> list[dict[str, object]]:
    """The bound by cache size."""
    rows: list[dict[str, object]] = []
    for one in workloads:
        uses = possible_uses(one)
        for share in SHARES_PERCENT:
            capacity = Case(one, Rule.FULL_RUNS, "LRU", share).capacity_items
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
    for name, policy in ((OURS, StepsAtStake()), ("LCBFU", LCBFU()), ("LRU", LRU()), ("FIFO", FIFO())):
        times = []
        for _ in range(3):
            began = time.perf_counter()
            policy.ranked(prompts, float(items))
            times.append(1e3 * (time.perf_counter() - began))
        took[name] = min(times)
    return took


def lead_over_best(cases: Sequence[Case], saved: Sequence[npt.NDArray[np.int64]]) -> list[dict[str, object]]:
    """Ours minus the best of the three known policies, with the standard error of 20 blocks of prompts."""
    by_case = {(c.workload.name, c.rule, c.share_percent, c.policy): s for c, s in zip(cases, saved, strict=True)}
    rows: list[dict[str, object]] = []
    for (workload, rule, share, policy), ours in by_case.items():
        if policy != OURS:
            continue
        rivals = {name: by_case[workload, rule, share, name] for name in POLICIES}
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
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=Path, required=True, help="real prompts, one a line, in order")
    parser.add_argument("--out", type=Path, default=Path("build/bench/eviction.json"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    began = time.monotonic()
    workloads = make_workloads(arguments.prompts)
    half = workloads[1]
    sizes = [Case(w, r, p, s) for w in workloads for r in RULES for s in SHARES_PERCENT for p in NAMES]
    clocks = [Case(half, r, OURS, 2.0, spacing_s=spacing) for r in RULES for spacing in SPACINGS_S]
    tried = [Case(half, r, OURS, s, constants=c) for r in RULES for s in CHECKED_PERCENT for c in CONSTANTS]
    saved = run_all(sizes + clocks + tried)
    rows = [row_of(case, one) for case, one in zip(sizes + clocks + tried, saved, strict=True)]
    document = {
        "prompts": len(workloads[0].entries),
        "rows": rows[: len(sizes)],
        "clock_rows": rows[len(sizes) : len(sizes) + len(clocks)],
        "constant_rows": rows[len(sizes) + len(clocks) :],
        "lead_rows": lead_over_best(sizes, saved[: len(sizes)]),
        "bound_rows": bound_rows(workloads),
        "unlimited_rows": unlimited_rows(workloads),
        "rank_ms_1e5": rank_ms(),
        "machine": machine_facts(),
        "took_s": time.monotonic() - began,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(document, indent=1) + "\n")
    arguments.results.mkdir(parents=True, exist_ok=True)
    page = render(document)
    (arguments.results / "eviction.md").write_text(page)
    plot(document, arguments.results / "eviction.png")
    print(page)


if __name__ == "__main__":
    main()
