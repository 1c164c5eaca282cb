"""The pools and traces of `make bench-models`: eight workers, each with one of two models."""

from collections.abc import Sequence
from dataclasses import dataclass

from bench.policy.traces import full_rate_rps
from t2i_simulator.lineage import TURBO, profiles
from t2i_simulator.workers import Group

WORKERS = 8


@dataclass(frozen=True, slots=True)
class ModelsTrace:
    """Arrivals by name, and their load."""

    name: str
    load: float
    arrived_s: Sequence[float]


def groups_of(distilled: int) -> tuple[Group, ...]:
    """Workers by the model that they hold."""
    profile = profiles()["sdxl-turbo-a10g"]
    groups = Group("sdxl", WORKERS - distilled, profile), Group(TURBO, distilled, profile, TURBO)
    return tuple(group for group in groups if group.num_workers)


def load_rps(load: float) -> float:
    """Requests/s of a load: a share of what eight SDXL workers carry at K=25."""
    return load * full_rate_rps(groups_of(0), 25)
