"""Which policies there are, by the names that `--policy` takes."""

from t2i_policy.baselines.catalogue import UnknownPolicy, all_policies, policy_named
from t2i_policy.policies import ServingPolicy
from t2i_simulator.errors import SimulatorError


def choose_policies(names: str) -> tuple[ServingPolicy, ...]:
    """`NAME[,NAME...]` or `all`, in that order, each once. Ablations are chosen by name only.

    Raises:
        SimulatorError: no policy has a name; lists those there are.
    """
    if names.strip() == "all":
        return all_policies()
    chosen: dict[str, ServingPolicy] = {}
    for name in (part.strip() for part in names.split(",")):
        try:
            chosen[name] = policy_named(name)
        except UnknownPolicy as error:
            raise SimulatorError(f"--policy: {error}") from error
    return tuple(chosen.values())
