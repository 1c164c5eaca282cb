"""All policies by name, as `--policy` takes them and tables print them."""

from t2i_api.pool import PoolSpec
from t2i_policy.policies import PromptAware, ServingPolicy
from t2i_simulator.errors import UnknownPolicy
from t2i_simulator.rivals.ablations import FEWER_STEPS_ONLY, ablations
from t2i_simulator.rivals.cascade import Cascade
from t2i_simulator.rivals.fixed_level import ClipperHighAccuracy, ClipperHighThroughput, LeastLoaded, RandomLevel
from t2i_simulator.rivals.infaas import InfaasAccuracy
from t2i_simulator.rivals.nirvana import Nirvana, NirvanaCalibrated
from t2i_simulator.rivals.pac import PromptAgnostic
from t2i_simulator.rivals.paper import ThePaper
from t2i_simulator.rivals.proteus import Proteus
from t2i_simulator.rivals.sommelier import Sommelier

OURS = "prompt-aware"


def all_policies() -> tuple[ServingPolicy, ...]:
    """Ours first, then every rival: `--policy all`."""
    return (
        PromptAware(),
        ThePaper(),
        ThePaper(chained=True, name="paper-chained", source="the paper with the chained aligner, which hits f"),
        Proteus(),
        PromptAgnostic(),
        Nirvana(),
        NirvanaCalibrated(),
        Sommelier(),
        InfaasAccuracy(),
        Cascade(),
        FEWER_STEPS_ONLY,
        ClipperHighAccuracy(),
        ClipperHighThroughput(),
        RandomLevel(),
        LeastLoaded(),
    )


def policy_names() -> tuple[str, ...]:
    """The names of all policies and ablations, each once."""
    return tuple(dict.fromkeys(policy.name for policy in (*all_policies(), *ablations())))


def policy_named(name: str) -> ServingPolicy:
    """The policy or ablation of this name.

    Raises:
        UnknownPolicy: none has this name.
    """
    for policy in (*all_policies(), *ablations()):
        if policy.name == name:
            return policy
    raise UnknownPolicy(f"--policy: no policy is named {name!r}; there are {', '.join(policy_names())}")


def choose_policies(names: str, spec: PoolSpec) -> tuple[ServingPolicy, ...]:
    """The policies of `NAME[,NAME...]` or `all`, in that order, each once.

    Ours does what the pool's gateways would do: with a Fixed mix its workers keep their levels. Rivals and ablations
    plan their own mix.

    Raises:
        UnknownPolicy: a name is of no policy.
    """
    wanted = [name.strip() for name in names.split(",")]
    if wanted == ["all"]:
        wanted = [policy.name for policy in all_policies()]
    ours = PromptAware(pinned=spec.pinned_workers)
    return tuple(ours if name == OURS else policy_named(name) for name in dict.fromkeys(wanted))
