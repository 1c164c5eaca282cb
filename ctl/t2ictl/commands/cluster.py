"""`t2ictl cluster pools` and `t2ictl cluster plan`: what the operator says about pools, and why it planned so."""

from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from t2i_api.status import ConditionStatus, ModelStatus, PlanStatus, PoolStatus
from t2ictl.cluster import PoolName, PoolSeen
from t2ictl.errors import ClusterFailed
from t2ictl.running import console, run

app = typer.Typer(no_args_is_help=True, help="Pools of a Kubernetes cluster, by your kubeconfig.")
#: Conditions whose good value is False.
BAD_IF_TRUE = ("Degraded", "Progressing")


@app.command()
def pools(
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="only this one; default: all")] = "",
) -> None:
    """List pools, and in words what is wrong with them."""
    run(show_pools(console, namespace))


@app.command()
def plan(
    pool: str, namespace: Annotated[str, typer.Option("--namespace", "-n", help="of the pool")] = "default"
) -> None:
    """Why this mix: the traffic a pool's plan was made for, workers by level, prompts by level."""
    run(show_plan(console, PoolName(namespace, pool)))


async def show_pools(console: Console, namespace: str) -> None:
    """Every pool on a line; below, in words, what is not as it should be."""
    from t2ictl.kube import open_cluster

    async with open_cluster() as cluster:
        found = await cluster.pools(namespace)
    if not found:
        where = f"in namespace {namespace}" if namespace else "in this cluster"
        console.print(f"no pools {where}; make one: kubectl apply --filename examples/pool.yaml")
        return
    table = Table("pool", "ready", "reason", "workers", "mix", "quality", "plan", box=None, pad_edge=False)
    for pool in found:
        table.add_row(*_row(pool))
    console.print(table)
    for pool in found:
        for condition in pool.status.conditions:
            if _speaks_up(condition):
                text = f"{pool.name} [bold]{condition.type}={condition.status}[/bold] {condition.reason}: "
                console.print(text + condition.message, highlight=False, soft_wrap=True)


def _row(pool: PoolSeen) -> tuple[str, ...]:
    status = pool.status
    ready = condition_of(status, "Ready")
    return (
        str(pool.name),
        ready.status if ready else "Unknown",
        ready.reason if ready else "NotSeenYet",
        f"{status.ready_workers}/{status.workers}",
        f"{status.mix or '-'} ({pool.mode})",
        "-" if status.quality_percent is None else f"{status.quality_percent}%",
        "-" if status.plan is None else str(status.plan.revision),
    )


def condition_of(status: PoolStatus, kind: str) -> ConditionStatus | None:
    """The condition of a type, None if it was not set yet."""
    return next((one for one in status.conditions if one.type == kind), None)


def _speaks_up(condition: ConditionStatus) -> bool:
    good = "False" if condition.type in BAD_IF_TRUE else "True"
    return condition.status != good


async def show_plan(console: Console, name: PoolName) -> None:
    """The running plan of a pool: for which traffic, which workers where, which prompts at which level.

    Raises:
        ClusterFailed: no such pool, or no plan yet; says why.
    """
    from t2ictl.kube import open_cluster

    async with open_cluster() as cluster:
        pool = await cluster.pool(name)
    running = pool.status.plan
    if running is None:
        planned = condition_of(pool.status, "Planned")
        why = f"{planned.reason}: {planned.message}" if planned else "the operator has not looked at it yet"
        raise ClusterFailed(f"pool {name} has no plan: {why}")
    console.print(_headline(pool, running), highlight=False, soft_wrap=True)
    console.print(_placements(running))
    if pool.status.models:
        console.print(_models(pool.status.models))
    if (move := pool.status.move) is not None:
        text = f"{move.worker} gives up {move.from_model} for {move.to_model} since {move.ordered_at}: {move.reason}"
        console.print(text, highlight=False, soft_wrap=True)
    if running.shifts:
        console.print(_shifts(running))


def _headline(pool: PoolSeen, plan: PlanStatus) -> str:
    quality = f"expected quality {plan.quality_percent}% of exact"
    shed = f", [red]{_rps(plan.shed_milli_rps)} shed[/red]" if plan.shed_milli_rps else ""
    return (
        f"{pool.name}: plan [bold]{plan.revision}[/bold] ({pool.mode}) since {plan.made_at or 'unknown'}, "
        f"made because {plan.reason}, found by {plan.method or 'unknown'}\n"
        f"for {_rps(plan.demand_milli_rps)}: {plan.outcome or 'unknown'}, {quality}{shed}"
    )


def _placements(plan: PlanStatus) -> Table:
    table = Table("group", "level", "workers", "which", title="workers by level")
    for one in plan.placements:
        which = ", ".join(str(number) for number in one.numbers)
        table.add_row(one.group, one.level.phrase, str(one.workers), which)
    return table


def _models(models: Sequence[ModelStatus]) -> Table:
    table = Table("model", "workers", "ready", "last reload", title="workers by model")
    for one in models:
        took = "-" if one.reload_milliseconds is None else f"{one.reload_milliseconds / 1e3:.1f} s"
        table.add_row(one.name, str(one.workers), str(one.ready), took)
    return table


def _shifts(plan: PlanStatus) -> Table:
    """One row for each class of prompts and level; the class's traffic on its first row only."""
    traffic = {one.prompt_class: one.milli_rps for one in plan.classes}
    table = Table("prompts like a cached one", "traffic", "served with", "share", title="prompts by level")
    last = None
    for one in plan.shifts:
        again = one.prompt_class == last
        last = one.prompt_class
        rate = _rps(traffic[one.prompt_class]) if one.prompt_class in traffic else "-"
        level = one.level.phrase
        share = f"{one.share_per_mille / 10:.1f}%"
        table.add_row("" if again else one.prompt_class, "" if again else rate, level, share)
    return table


def _rps(milli_rps: int) -> str:
    return f"{milli_rps / 1000:.2f} requests/s"
