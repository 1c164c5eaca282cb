"""Which policies there are, by the names that `--policy` takes."""

from importlib import import_module
from importlib.util import find_spec
from typing import cast

from t2i_policy.policies import PromptAware, ServingPolicy
from t2i_simulator.errors import SimulatorError

CATALOGUE = "t2i_policy.baselines.catalogue"


def known_policies() -> tuple[ServingPolicy, ...]:
    """Ours first, then every baseline."""
    if find_spec("t2i_policy.baselines") is None:
        return (PromptAware(),)
    return cast("tuple[ServingPolicy, ...]", import_module(CATALOGUE).all_policies())


def choose_policies(names: str) -> tuple[ServingPolicy, ...]:
    """`NAME[,NAME...]` or `all`, in that order, each once.

    Raises:
        SimulatorError: no policy has a name; lists those there are.
    """
    known = {policy.name: policy for policy in known_policies()}
    if names.strip() == "all":
        return tuple(known.values())
    chosen: dict[str, ServingPolicy] = {}
    for name in (part.strip() for part in names.split(",")):
        if name not in known:
            raise SimulatorError(f"--policy: no policy is named {name!r}; there are {', '.join(known)}, and all")
        chosen[name] = known[name]
    return tuple(chosen.values())
