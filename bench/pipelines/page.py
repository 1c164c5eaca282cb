"""The tables of docs/models.md."""

import inspect
from collections.abc import Sequence

import diffusers

from bench.kit.output import table
from bench.pipelines.crowd import CrowdFigures
from t2i_testing_kit.tiny_pipelines.limits import NOT_SHARED, RESUMED_INEXACT
from t2i_testing_kit.tiny_pipelines.measure import FamilyFigures
from t2i_worker.errors import ModelUnsupported
from t2i_worker.pipelines.loading import class_of

HEAD = ("model", "pipeline class", "noise scheduler", "alone", "in a batch", "resumed at K", "notes")


def models_table(rows: Sequence[FamilyFigures]) -> str:
    return table(HEAD, (_cells(row) for row in rows))


def _cells(row: FamilyFigures) -> Sequence[str]:
    worst = max(row.resumed_of_std.values())
    by_step = ", ".join(f"{apart:.2g} at {step}" for step, apart in row.resumed_of_std.items())
    return (
        row.name,
        row.pipeline,
        row.scheduler,
        "exact" if row.alone_max == 0 else f"{row.alone_max:.1g}",
        "exact" if row.mixed_max_of_std == 0 else f"{row.mixed_max_of_std:.0e}",
        "exact" if worst == 0 else by_step,
        "; ".join(notes[row.name] for notes in (RESUMED_INEXACT, NOT_SHARED) if row.name in notes),
    )


def crowds_table(crowds: Sequence[CrowdFigures]) -> str:
    head = ("model", "requests come", "requests", "cancelled", "failed", "another image than alone", "never ended")
    comes = {"race": "all at once", "arrivals": "at random times"}
    return table(
        head,
        (
            (row.family, comes[row.kind], row.requests, row.cancelled, row.failed, row.different, row.zombies)
            for row in crowds
        ),
    )


def refused_table() -> str:
    """The classes of the installed diffusers that take a prompt and are refused, by reason."""
    refused: dict[str, list[str]] = {}
    for name in text_to_something():
        try:
            class_of({"_class_name": name})
        except ModelUnsupported as error:
            refused.setdefault(str(error).rpartition(": ")[2], []).append(name)
    return table(("reason", "classes"), ((reason, _some(names)) for reason, names in refused.items()))


def _some(names: Sequence[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def text_to_something() -> Sequence[str]:
    """Pipeline classes whose call takes a prompt."""
    kinds = {name: getattr(diffusers, name) for name in dir(diffusers) if name.endswith("Pipeline")}
    return [name for name, kind in kinds.items() if "prompt" in inspect.signature(kind.__call__).parameters]
