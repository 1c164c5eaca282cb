"""`t2ictl plan`: the plan for a demand, and what the pool could carry. Capacity planning before buying GPUs.

The planner is the one that operator and gateway run; nothing is simulated, so queueing shows only through the share of
the SLO that a request is expected to wait.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from t2i_policy.frontier import ChosenLadder, LadderSource
from t2i_policy.level import Ladder, Level
from t2i_policy.planning.capacity import group_capacities, needed_slo_s
from t2i_policy.planning.classes import NO_NEIGHBOUR, ClassTable, build_classes, models_below_floor
from t2i_policy.planning.plan import GroupCapacity, Method, Places, Plan, make_plan
from t2i_simulator import lineage
from t2i_simulator.errors import SimulatorError
from t2i_simulator.profiles import build_groups
from t2i_simulator.scenario import ServiceTarget
from t2i_simulator.workers import Group, SimulatedPool
from t2i_sources import builtin_folder
from t2ictl.errors import InputInvalid
from t2ictl.local_pool import read_pool
from t2ictl.models_of_groups import parse_models
from t2ictl.options import PAPER_POOL, ModelOfGroup, NumWorkers, PoolFile, ProfileForAll
from t2ictl.running import console, told_in_a_line

TITLES = {
    LadderSource.SPEC: "the pool names its levels",
    LadderSource.PROFILE: "what the profile measured, without levels that another one beats",
    LadderSource.DEFAULT: "the paper's, as the profile measured no others",
}
METHODS = {
    Method.EXACT: "the best plan",
    Method.NEAR: "within a hundredth of a percent of the best plan",
    Method.TIME_LIMIT: "the best plan found in time",
    Method.GREEDY: "a greedy plan",
}
MEASURED, COUNTED = "cost, measured", "cost, counted"
COSTS = "costs are in guided steps: measured = what its time in the profile comes to, counted = what it computes"
LOADS = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)  # of the capacity, in the table


def plan(
    pool: PoolFile = PAPER_POOL,
    demand: Annotated[
        float | None, typer.Option(min=0, max=1e6, help="images/s; classes as in the lineage's histogram")
    ] = None,
    rates: Annotated[
        str, typer.Option(help="CLASS=RPS[,...] instead; a class is a lower edge of similarity, or none")
    ] = "",
    workers: NumWorkers = None,
    profile: ProfileForAll = None,
    model: ModelOfGroup = None,
) -> None:
    """Show the plan for a demand, and what the pool could carry: how many GPUs for which quality."""
    with told_in_a_line():
        run_plan(console, PlanOptions(pool, demand, rates, workers, profile, model or ()))


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """The command's options."""

    pool_file: Path
    demand_rps: float | None
    rates: str
    workers: int | None
    profile: Path | None
    models: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Subject:
    """What is planned for. `pinned`: where a Fixed mix stands."""

    ladder: Ladder
    groups: tuple[GroupCapacity, ...]
    classes: ClassTable
    pinned: Places
    idle: tuple[str, ...] = ()  # a sentence for each model that the floor forbids to all requests

    @property
    def exact_rps(self) -> float:
        """What the pool makes with nothing approximated."""
        return self.rps_at(self.ladder.exact)

    def rps_at(self, level: Level) -> float:
        """What the pool makes with every image at this level."""
        return sum(group.num_workers * group.rates_rps.get(level, 0.0) for group in self.groups)

    def plan(self, rates_rps: Mapping[str, float]) -> Plan:
        """The plan for this demand by class."""
        return make_plan(self.groups, self.classes.with_rates(rates_rps), pinned=self.pinned)


def run_plan(console: Console, options: PlanOptions) -> None:
    """Print the plan, the shift map and the capacity table.

    Raises:
        InputInvalid: a file or option cannot be used.
    """
    pool = read_pool(options.pool_file)
    if pool.spec.pinned_workers and options.workers is not None:
        raise InputInvalid("--workers: mix.mode Fixed places every worker: make it Auto, or edit the file")
    if options.rates and options.demand_rps is not None:
        raise InputInvalid("--rates: it tells the demand by class, so leave out --demand, or --rates")
    folder = builtin_folder(pool.spec.model.source)
    own = None if folder is None else folder / "profile.json"
    models = parse_models(options.models, pool.spec)
    try:
        groups = build_groups(pool.spec, options.pool_file.parent, own, options.profile, options.workers, models)
    except SimulatorError as error:
        raise InputInvalid(str(error)) from error
    target = ServiceTarget.of(pool.spec)
    chosen = pool.spec.choose_ladder(groups[0].profile, models.values())
    subject = _subject(chosen.ladder, groups, target, pool.spec.pinned_workers)
    shares = lineage_shares(subject.classes)
    rates_rps = parse_rates(options.rates, subject.classes) if options.rates else None
    if rates_rps is None:
        demand_rps = subject.exact_rps if options.demand_rps is None else options.demand_rps
        rates_rps = {name: share * demand_rps for name, share in shares.items()}
    plan = subject.plan(rates_rps)
    console.print(_ladder_table(chosen))
    console.print(_workers_table(plan, subject))
    console.print(_shift_table(plan, subject, rates_rps))
    console.print(_sentence(plan))
    for sentence in subject.idle:
        console.print(sentence)
    total = sum(rates_rps.values())
    mix = {name: rate / total for name, rate in rates_rps.items()} if total > 0 else shares
    console.print(_capacity_table(subject, mix))


def _subject(ladder: Ladder, groups: tuple[Group, ...], target: ServiceTarget, pinned: Places) -> Subject:
    """Raises:
    InputInvalid: no worker makes an image within the SLO, at any level that the floor allows.
    """
    classes = build_classes(ladder, groups[0].profile, target.max_loss, target.harmless_loss)
    views = SimulatedPool(groups).view(0.0, 0, 0).workers
    needed_s = [
        needed_slo_s(view.step_s, view.fixed_s, level)
        for view in views
        for level in classes.allowed
        if level.model == view.model
    ]
    if not needed_s:
        raise InputInvalid("--workers: none would hold a model that slo.minQualityPercent allows: plan for more")
    least_s = min(needed_s)
    if least_s > target.slo_s:
        raise InputInvalid(
            f"slo.latencyMilliseconds: no level fits into {1000 * target.slo_s:.0f} ms: an image at the quickest one "
            f"within slo.minQualityPercent, alone on a worker and with its wait, needs {ceil(1000 * least_s)}; set at "
            "least that, or add a level"
        )
    capacities = group_capacities(views, ladder.levels, target.slo_s)
    idle = models_below_floor(classes, ladder, groups[0].profile, target.max_loss)
    return Subject(ladder, capacities, classes, pinned, idle)


def lineage_shares(classes: ClassTable) -> dict[str, float]:
    """The lineage's histogram on this profile's classes: each of its bands goes to the class of its lower edge."""
    if not classes.edges:
        return {NO_NEIGHBOUR: 1.0}
    shares: dict[str, float] = {}
    for skip, lower, _ in lineage.bands():
        edge = max((edge for edge in classes.edges if edge <= lower + 1e-9), default=classes.edges[0])
        name = f"{edge:.2f}"
        shares[name] = shares.get(name, 0.0) + lineage.shares()[skip]
    return shares


def parse_rates(text: str, classes: ClassTable) -> dict[str, float]:
    """`CLASS=RPS[,...]`.

    Raises:
        InputInvalid: a class that the pool's profile does not know, or a rate that is no number >= 0.
    """
    rates: dict[str, float] = {}
    for part in text.split(","):
        name, _, rate = part.strip().partition("=")
        if name not in classes.losses:
            raise InputInvalid(f"--rates: no class {name!r}; there are {', '.join(classes.losses)}")
        try:
            rates[name] = float(rate)
        except ValueError:
            raise InputInvalid(f"--rates: {name}={rate!r} is not a rate in images/s") from None
        if not 0 <= rates[name] < float("inf"):
            raise InputInvalid(f"--rates: {name} must be a finite rate >= 0, got {rate}")
    return rates


def _ladder_table(chosen: ChosenLadder) -> Table:
    cost = MEASURED if chosen.source is LadderSource.PROFILE else COUNTED
    table = Table("level", cost, "used", "why", title=f"ladder: {TITLES[chosen.source]}", caption=COSTS)
    for one in chosen.judged:
        used = "yes" if one.kept else "no"
        table.add_row(one.level.label(chosen.ladder.base_steps), f"{one.cost:.3g}", used, one.reason)
    return table


def _workers_table(plan: Plan, subject: Subject) -> Table:
    table = Table("group", "level", COUNTED, "workers", "images/s each", title="workers")
    groups = {group.name: group for group in subject.groups}
    for (name, level), count in sorted(plan.workers.items(), key=lambda item: (item[0][0], -item[0][1].cost)):
        rate_rps = groups[name].rates_rps.get(level, 0.0)
        label = level.label(subject.ladder.base_steps)
        table.add_row(name, label, f"{level.cost:g}", str(count), f"{rate_rps:.3f}")
    return table


def _shift_table(plan: Plan, subject: Subject, rates_rps: Mapping[str, float]) -> Table:
    levels = _used_levels(plan, subject.ladder)
    labels = [level.label(subject.ladder.base_steps) for level in levels]
    table = Table("class", "images/s", *labels, title="shift map: where prompts of each class are served, percent")
    for name, rate in sorted(rates_rps.items()):
        shares = [plan.share(name, level) for level in levels]
        table.add_row(name, f"{rate:.3f}", *(f"{100 * share:.0f}" if share else "" for share in shares))
    return table


def _used_levels(plan: Plan, ladder: Ladder) -> Sequence[Level]:
    used = {level for row in plan.shift_map.values() for level in row}
    return [level for level in ladder.levels if level in used]


def _sentence(plan: Plan) -> str:
    return (
        f"{plan.outcome} ({METHODS[plan.method]}): expected quality {100 * (1 - plan.mean_loss):.2f}% of exact, "
        f"{plan.shed_rps:.3f} of {plan.demand_rps:.3f} images/s shed"
    )


def _capacity_table(subject: Subject, mix: Mapping[str, float]) -> Table:
    whole_rps, of = subject.exact_rps, "with nothing approximated"
    if whole_rps == 0:  # then loads of it would all be nothing
        quickest = max(subject.classes.allowed, key=lambda level: (subject.rps_at(level), level))
        whole_rps = subject.rps_at(quickest)
        of = f"at {quickest.label(subject.ladder.base_steps)}; no exact image fits into slo.latencyMilliseconds"
    title = f"capacity: {whole_rps:.3f} images/s ({60 * whole_rps:.1f} a minute) {of}"
    table = Table("load", "images/s", "a minute", "quality", "shed", title=title)
    for load in LOADS:
        rate_rps = load * whole_rps
        plan = subject.plan({name: share * rate_rps for name, share in mix.items()})
        shed = 100 * plan.shed_rps / rate_rps if rate_rps else 0.0
        quality = f"{100 * (1 - plan.mean_loss):.2f}%"
        table.add_row(f"{load:.2f}x", f"{rate_rps:.3f}", f"{60 * rate_rps:.1f}", quality, f"{shed:.1f}%")
    return table
