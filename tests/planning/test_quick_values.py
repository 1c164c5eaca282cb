"""Values that are plain when they run behave as frozen ones: equal, hashed by what they hold, replaced."""

from dataclasses import dataclass, replace

import pytest

from t2i_policy.pool_view import PoolView, WorkerView
from t2i_policy.quick_dataclass import quick_dataclass
from t2i_policy.request.options import Neighbourhood


@dataclass(frozen=True, slots=True)
class FrozenPair:
    first: int
    second: str = ""


@quick_dataclass(frozen=True, slots=True)
class QuickPair:
    first: int
    second: str = ""


def test_they_hold_what_frozen_ones_hold() -> None:
    frozen, quick = FrozenPair(1, "a"), QuickPair(1, "a")
    assert hash(quick) == hash(frozen)
    assert repr(quick) == repr(frozen).replace("Frozen", "Quick")
    assert quick == QuickPair(1, "a") != QuickPair(2, "a")
    assert replace(quick, first=2) == QuickPair(2, "a")
    assert not hasattr(quick, "__dict__")


def test_they_are_keys() -> None:
    near = Neighbourhood(0.8, frozenset({10}))
    assert {near: "found"}[Neighbourhood(0.8, frozenset({10}))] == "found"


@pytest.mark.parametrize("running", [0, 1, 2])
def test_what_follows_from_a_worker_follows_anew_when_it_is_replaced(running: int) -> None:
    idle = WorkerView("w", True, 0, 0, 2, (0.1, 0.15), 0.2, 0)
    busy = replace(idle, running=running, steps_left=30 * running)
    assert busy == WorkerView("w", True, running, 0, 2, (0.1, 0.15), 0.2, 30 * running)
    assert (busy.free_slots, PoolView((busy, idle), 0, 0).free_slots) == (2 - running, 4 - running)
