"""What every test folder may ask for, and limits of time that no slow machine exceeds."""

import atexit
import gc
import os
from collections.abc import Iterator

# Its pytest plugin imports it at the very end where no test did, in the middle of what servers left to be collected:
# CPython 3.11 then sometimes fails to parse it (SystemError: AST constructor recursion depth mismatch).
import hypothesis
import pytest

from t2i_policy.planning.plan import make_plan

# Looking through what torch, diffusers and all tests leave in memory takes half a second each time. While
# they are imported nothing is worth a look, and afterwards they are no garbage: looks pass over what is frozen.
gc.disable()
atexit.register(gc.unfreeze)  # or nanobind, in triton, lists at the end what it calls leaks

pytest_plugins = ["kube_fixtures", "valkey_fixtures"]
PLAN_LIMIT_S = 60.0
PROCESS_LIMIT_S = 900  # of tests that start servers: on a machine that does much else, starting them takes minutes

# An example that took 200 ms because the machine stood still is no finding. Every run draws the same examples;
# HYPOTHESIS_PROFILE=hunt draws new ones.
hypothesis.settings.register_profile("hunt", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.register_profile("same", hypothesis.settings.get_profile("hunt"), derandomize=True)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that start servers have time, and those that say so have more."""
    for item in items:
        if item.get_closest_marker("process") is not None and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(PROCESS_LIMIT_S))


def pytest_collection_finish() -> None:
    """What tests make is looked at as ever."""
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True, scope="session")
def _plans_have_time() -> Iterator[None]:
    """The solver's limit of a second is on the clock of this machine, also where all else goes by virtual time."""
    with pytest.MonkeyPatch.context() as patch:
        assert make_plan.__kwdefaults__ is not None
        patch.setitem(make_plan.__kwdefaults__, "time_limit_s", PLAN_LIMIT_S)
        yield
