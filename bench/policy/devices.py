"""Unlike devices: four fast workers and four slow ones, all alive, or one of either kind lost.

Slow ones take `SLOWER` times as long for a step. Loads are of what all eight carry with everybody at K=25; the SLO is a
multiple of an exact image on a fast one. A lost worker dies after a third of the trace and stays away.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from statistics import fmean
from typing import Any

from bench.kit.output import rows_table
from bench.kit.places import EXAMPLES, example_spec
from bench.policy.jobs import in_processes, shared_runner
from bench.policy.shapes import SHAPES, arrivals
from bench.policy.traces import EXACT_S, LADDERS, TraceRunner, full_rate_rps
from t2i_policy.policies import ServingPolicy
from t2i_policy.profile import LevelProfile
from t2i_simulator.engine import simulate
from t2i_simulator.faults import Fault
from t2i_simulator.profiles import build_groups
from t2i_simulator.report import Row, Setting, measure, summarise
from t2i_simulator.rivals.catalogue import OURS, policy_named
from t2i_simulator.true_loss import Truth
from t2i_simulator.workers import Group
from t2i_simulator.workload import build_workload

EACH = 4
SLOWER = (2, 3)
MULTIPLES = (2, 3, 5)
TRACES = ("MMPP", "ramp")
LOST = {"all alive": None, "a slow one dies": "slow-0", "a fast one dies": "fast-0"}
POLICIES = (OURS, "ours-deadline-only", "ours-shift-map", "infaas-tuned")
COLUMNS = {
    "devices": "{setting}",
    "policy": "{policy}",
    "violated %": "{violated:.2f}",
    "late %": "{late:.2f}",
    "quality %": "{quality:.2f}",
    "goodput %": "{goodput:.2f}",
}


@dataclass(frozen=True, slots=True)
class DeviceJob:
    """One policy, on every trace of `TRACES`, on four fast workers and four that are `slower` times slower."""

    slower: int
    multiple: int
    lost: str
    policy: ServingPolicy
    count: int

    def run(self) -> dict[str, object]:
        """Means over the traces."""
        rows = list(self._rows(shared_runner()))
        return {
            "setting": f"4 + 4 at {self.slower}x, SLO {self.multiple}x, {self.lost}",
            "policy": self.policy.name,
            "violated": fmean(row.violation_percent for row in rows),
            "late": fmean(100 * row.late / row.offered for row in rows),
            "quality": fmean(row.quality_percent for row in rows),
            "goodput": fmean(row.goodput_percent for row in rows),
        }

    def _rows(self, runner: TraceRunner) -> Iterator[Row]:
        spec = example_spec(LADDERS["skips"])
        groups = unlike_groups(build_groups(spec, EXAMPLES, None)[0].profile, self.slower)
        for name in TRACES:
            shape, load = SHAPES[name]
            rate_rps = load * full_rate_rps(groups, spec.model.num_inference_steps - 25)
            arrived_s = arrivals(shape, rate_rps, self.count, runner.seed)
            lost = LOST[self.lost]
            faults = (Fault(lost, arrived_s[-1] / 3),) if lost else ()
            workload = build_workload(spec, groups, arrived_s, runner.prompts, runner.seed, faults)
            target = replace(workload.scenario.target, slo_s=self.multiple * EXACT_S)
            scenario = replace(workload.scenario, target=target)
            outcomes = simulate(scenario, self.policy)
            setting = Setting(name, scenario.ladder, target.slo_s, 2 * EACH, workload.prompt_of)
            measured = measure(outcomes, setting, Truth(scenario.profile, runner.seed))
            yield summarise(self.policy.name, outcomes, setting, measured)


def unlike_groups(profile: LevelProfile, slower: int) -> tuple[Group, ...]:
    """Four of this profile, four that are slower."""
    slow = replace(profile, step_s=tuple(slower * step_s for step_s in profile.step_s))
    return Group("fast", EACH, profile), Group("slow", EACH, slow)


def device_rows(runner: TraceRunner, count: int) -> Sequence[dict[str, object]]:
    """A row a setting and policy."""
    jobs = [
        DeviceJob(slower, multiple, lost, policy_named(name), count)
        for slower, multiple, lost, name in product(SLOWER, MULTIPLES, LOST, POLICIES)
    ]
    return in_processes(runner, DeviceJob.run, jobs, lambda row: f"{row['setting']} {row['policy']}")


def device_table(rows: Sequence[dict[str, Any]]) -> str:
    """As Markdown, with where ours is behind."""
    return "\n".join((rows_table(COLUMNS, rows), "", *(_where_ahead(rows, name) for name in POLICIES if name != OURS)))


def _where_ahead(rows: Sequence[dict[str, Any]], policy: str) -> str:
    goodput = {(row["setting"], row["policy"]): row["goodput"] for row in rows}
    more = {setting: at - goodput[setting, OURS] for (setting, name), at in goodput.items() if name == policy}
    ahead = [setting for setting, points in more.items() if points > 0]
    if not ahead:
        return f"- `{policy}` has nowhere more goodput than ours."
    most = max(ahead, key=lambda setting: more[setting])
    return (
        f"- `{policy}` has more goodput than ours in {len(ahead)} of {len(more)} settings, at most {more[most]:.2f} "
        f"points more ({most})."
    )
