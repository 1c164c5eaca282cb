"""bench/results/operator.md from build/bench/operator.json: `make bench-operator` writes it."""

from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent / "results" / "operator.md"
#: Key, what it is, its unit, the bound that was set before and what would be better still.
ROWS = (
    ("ready_1000_s", "all pools Ready, from the first POST", "s", "258", "125"),
    ("restart_1000_s", "a new process has looked at every pool", "s", "120", "45"),
    ("restart_writes", "writes of that process", "", "0", ""),
    ("idle_writes", "writes in the idle minutes", "", "0", ""),
    ("create_to_children_p50_s", "one more pool: its last child written, median", "s", "", ""),
    ("create_to_children_p99_s", "the same, 99th percentile", "s", "3", "1"),
    ("plan_after_step_s", "demand doubles: the new plan in `status`, longest", "s", "3", ""),
    ("rss_mib_1000", "memory at most", "MiB", "", ""),
    ("rss_mib_after_idle", "memory after the idle minutes", "MiB", "", ""),
)
TEXT = """# The operator at scale

`make bench-operator` (about 22 minutes): a real API server and etcd, the operator as a process behind a proxy that
counts its calls, pods and workloads played as ready as soon as they are written, a gateway's demand over gRPC for every
pool. All of it shares {cores} cores ({processor}); load average before: {before}.

{pools} pools in {namespaces} namespaces, {idle_minutes:g} idle minutes, {samples} pools one after the other.

| | figure | bound | aim |
|---|---|---|---|
{rows}

{phases}
"""


def write_page(figures: dict[str, Any]) -> None:
    """Render the whole JSON."""
    rows = [
        f"| {text} | {figures[key]:g}{' ' + unit if unit else ''} | {bound} | {aim} |"
        for key, text, unit, bound, aim in ROWS
        if key in figures
    ]
    phases = ["| phase | took s | reads | writes | events | operator CPU s |", "|---|---|---|---|---|---|"]
    for name, one in figures["phases"].items():
        numbers = (one["took_s"], one["reads"], one["writes"], one["events"], one["operator_cpu_s"])
        phases.append(f"| {name} | {' | '.join(f'{number:g}' for number in numbers)} |")
    facts = {
        "cores": figures["machine"]["cores"],
        "processor": figures["machine"]["processor"],
        "before": figures["load_average_before"],
        "samples": figures["create_to_children_samples"],
    }
    names = ("pools", "namespaces", "idle_minutes")
    text = TEXT.format(
        rows="\n".join(rows), phases="\n".join(phases), **facts, **{name: figures[name] for name in names}
    )
    PAGE.write_text(text)
