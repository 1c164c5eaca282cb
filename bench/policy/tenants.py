"""Two tenants, one flooding: what each gets from the fair queue, and from one line for all by deadline.

`calm` asks for less than its share of the pool, `flood` for three times the pool's capacity. Poisson arrivals on the
hybrid SDXL pool of the lineage, similarities drawn from its histogram, every latent stored. Capacity: what full batches
make at the fewest steps of the ladder. Without fairness both are one tenant to the queue.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace

import numpy as np
import numpy.typing as npt

from bench.kit.output import rows_table, say
from bench.kit.places import EXAMPLES, example_spec
from bench.policy.traces import EXACT_S, full_rate_rps
from t2i_policy.policies import PromptAware
from t2i_simulator.engine import simulate
from t2i_simulator.outcomes import Fate, Outcomes
from t2i_simulator.profiles import build_groups
from t2i_simulator.report import MeasuredRun, Setting, measure
from t2i_simulator.scenario import SimulatedTenant
from t2i_simulator.true_loss import Truth
from t2i_simulator.workload import build_workload

TENANTS_S = 300.0  # of arrivals
FLOOD = 3.0  # of capacity
SLO_S = 5 * EXACT_S
COLUMNS = {
    "weights": "1 : {flood_weight:.0f}",
    "gateways": "{gateways}",
    "calm asks": "{calm_asks}",
    "queue": "{queue}",
} | {
    f"{tenant} {title}": f"{{{tenant}[{name}]:{form}}}"
    for tenant in ("calm", "flood")
    for title, name, form in (
        ("violated %", "violated_percent", ".1f"),
        ("shed %", "shed_percent", ".1f"),
        ("late %", "late_percent", ".1f"),
        ("quality %", "quality_percent", ".2f"),
        ("goodput, images/s", "goodput_rps", ".2f"),
    )
}


@dataclass(frozen=True, slots=True)
class TenantEnds:
    """What became of one tenant's requests, in percent of them. Goodput: images in time, each times its quality."""

    violated_percent: float
    shed_percent: float
    late_percent: float
    quality_percent: float
    goodput_rps: float


@dataclass(frozen=True, slots=True)
class TenantsCase:
    """`calm_load` of capacity; `alone`: all of calm's requests go to the first gateway, flood's to all."""

    flood_weight: float
    calm_load: float
    gateways: int
    alone: bool = False
    fair: bool = True


@dataclass(frozen=True, slots=True)
class TenantsRow:
    flood_weight: float
    gateways: int
    calm_asks: str
    queue: str
    calm: TenantEnds
    flood: TenantEnds


def tenants_table(rows: Iterable[TenantsRow]) -> str:
    return rows_table(COLUMNS, map(asdict, rows))


def tenants_rows(seed: int, seconds: float) -> list[TenantsRow]:
    rows = [run_case(case, seed, seconds) for case in cases()]
    for row in rows:
        say(f"two tenants, {row}")
    return rows


def cases() -> Iterator[TenantsCase]:
    """Calm asks for four fifths of its share."""
    for weight in (1.0, 3.0):
        for gateways, alone in ((1, False), (2, False), (2, True), (4, False), (4, True)):
            for fair in (True, False):
                yield TenantsCase(weight, 0.8 / (1 + weight), gateways, alone, fair)


def run_case(case: TenantsCase, seed: int, seconds: float) -> TenantsRow:
    spec = example_spec("pool-sdxl-8-hybrid")
    groups = build_groups(spec, EXAMPLES, None)
    capacity_rps = full_rate_rps(groups, min(level.steps_run for level in spec.ladder.levels))
    rng = np.random.default_rng([seed, 3])
    calm, flood = (
        rng.uniform(0, seconds, rng.poisson(load * capacity_rps * seconds)) for load in (case.calm_load, FLOOD)
    )
    arrived_s, is_flood = np.concatenate([calm, flood]), np.repeat([0, 1], [len(calm), len(flood)])
    order = np.argsort(arrived_s)
    workload = build_workload(spec, groups, arrived_s[order].tolist(), None, seed)
    names = ("calm", "flood") if case.fair else ("anybody", "anybody")
    calm_shares = (1.0, *[0.0] * (case.gateways - 1)) if case.alone else ()
    scenario = replace(
        workload.scenario,
        target=replace(workload.scenario.target, slo_s=SLO_S),
        gateways=case.gateways,
        tenants=(SimulatedTenant(names[0], 1.0, calm_shares), SimulatedTenant(names[1], case.flood_weight)),
        tenant_of=is_flood[order].tolist(),
    )
    outcomes = simulate(scenario, PromptAware())
    setting = Setting("two tenants", scenario.ladder, SLO_S, 8, workload.prompt_of)
    measured = measure(outcomes, setting, Truth(scenario.profile, seed))
    ends = [tenant_ends(outcomes, measured, is_flood[order] == place, seconds) for place in (0, 1)]
    asks, queue = "one" if case.alone else "all", "fair" if case.fair else "one line"
    return TenantsRow(case.flood_weight, case.gateways, asks, queue, *ends)


def tenant_ends(outcomes: Outcomes, measured: MeasuredRun, own: npt.NDArray[np.bool_], seconds: float) -> TenantEnds:
    """Of the requests in `own`."""
    fates, loss, violated = np.asarray(outcomes.fates)[own], measured.loss[own], measured.violated[own]
    served = fates == Fate.SERVED
    return TenantEnds(
        violated_percent=float(100 * violated.mean()),
        shed_percent=float(100 * (fates == Fate.SHED).mean()),
        late_percent=float(100 * (served & violated).mean()),
        quality_percent=float(100 * (1 - loss[served].mean())) if served.any() else 0.0,
        goodput_rps=float((1 - loss[~violated]).sum() / seconds),
    )
