"""Which policies there are, by the names that `--policy` takes."""

from t2i_api.pool import PoolSpec
from t2i_policy.planning.fixed_mix import serving_policy
from t2i_policy.policies import ServingPolicy
from t2i_simulator.errors import SimulatorError
from t2i_simulator.rivals.catalogue import UnknownPolicy, all_policies, policy_named

OURS = "prompt-aware"


def choose_policies(names: str, spec: PoolSpec) -> tuple[ServingPolicy, ...]:
    """`NAME[,NAME...]` or `all`, in that order, each once. Ablations are chosen by name only. Ours is what the pool's
    gateways would do: with a Fixed mix its workers stay where the mix has them. Baselines and ablations plan their own.

    Raises:
        SimulatorError: no policy has a name; lists those there are.
    """
    ours = serving_policy(spec.fixed_workers, spec.group_sizes)
    if names.strip() == "all":
        return tuple(ours if policy.name == OURS else policy for policy in all_policies())
    chosen: dict[str, ServingPolicy] = {}
    for name in (part.strip() for part in names.split(",")):
        try:
            chosen[name] = ours if name == OURS else policy_named(name)
        except UnknownPolicy as error:
            raise SimulatorError(f"--policy: {error}") from error
    return tuple(chosen.values())
