"""The catalogue: every policy by its name, as `--policy` takes them and tables print them.

The oracle is not in it: it must be told the future first (`oracle.Oracle(clear(...), true profile)`).
"""

from t2i_policy.policies import PromptAware, ServingPolicy
from t2i_simulator.rivals.ablations import FEWER_STEPS_ONLY, ablations
from t2i_simulator.rivals.cascade import Cascade
from t2i_simulator.rivals.fixed_level import ClipperHighAccuracy, ClipperHighThroughput, LeastLoaded, RandomLevel
from t2i_simulator.rivals.infaas import InfaasAccuracy
from t2i_simulator.rivals.nirvana import Nirvana, NirvanaCalibrated
from t2i_simulator.rivals.pac import PromptAgnostic
from t2i_simulator.rivals.paper import ThePaper
from t2i_simulator.rivals.proteus import Proteus
from t2i_simulator.rivals.sommelier import Sommelier


class UnknownPolicy(ValueError):
    """No policy has this name; the message lists those there are."""


def all_policies() -> tuple[ServingPolicy, ...]:
    """Ours first, then every baseline; `--policy all`."""
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
    """Names of all policies, then of the ablations that are not among them."""
    return tuple(dict.fromkeys(policy.name for policy in (*all_policies(), *ablations())))


def policy_named(name: str) -> ServingPolicy:
    """The policy or ablation of this name.

    Raises:
        UnknownPolicy: there is none.
    """
    for policy in (*all_policies(), *ablations()):
        if policy.name == name:
            return policy
    raise UnknownPolicy(f"no policy is named {name!r}; there are {', '.join(policy_names())}")
