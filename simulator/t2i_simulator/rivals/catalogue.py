"""All policies by name, as `--policy` takes them and tables print them."""

from dataclasses import replace

from t2i_api.pool import PoolSpec
from t2i_policy.policies import PromptAware, ServingPolicy
from t2i_simulator.errors import UnknownPolicy
from t2i_simulator.rivals.ablations import FEWER_STEPS_ONLY, ablations
from t2i_simulator.rivals.cascade import Cascade
from t2i_simulator.rivals.common import Strength
from t2i_simulator.rivals.fixed_level import ClipperHighAccuracy, ClipperHighThroughput
from t2i_simulator.rivals.infaas import InfaasAccuracy, VariantByBacklog
from t2i_simulator.rivals.nirvana import MeasuredThresholds, Nirvana
from t2i_simulator.rivals.pac import PromptAgnostic
from t2i_simulator.rivals.paper import ThePaper
from t2i_simulator.rivals.priced_cascade import PricedCascade
from t2i_simulator.rivals.proteus import Proteus
from t2i_simulator.rivals.several_models import several_models
from t2i_simulator.rivals.sommelier import Sommelier

OURS = "prompt-aware"
TUNED, CALM = "-tuned", "-tuned-calm"  # end the name of a rival at its strongest


def tuned() -> tuple[ServingPolicy, ...]:
    """Rivals at their strongest: the values that `bench/policy/tune.py` found on its development traces.

    All run any level on any worker and use the whole ladder, which paid for every rival. Those traces include
    overloaded ones and tight SLOs. The headroom that is best over all of them is far too much at rest. So who plans by
    it stands here twice: with the best one over all, and with the best one over the loads of 0.6 at SLO 5x (`-calm`).
    From 1.8 to 2.2 the former changes by less than 0.1 points. The artifact's one hop is 0.1 to 0.3 points ahead of
    chained moves.
    """
    always = Strength(2.2, any_worker=True, whole_ladder=True)
    at_rest = replace(always, headroom=1.3)
    return (
        ThePaper(always, name=f"paper{TUNED}", source="the paper, tuned"),
        ThePaper(at_rest, name=f"paper{CALM}", source="the paper, tuned at rest"),
        Proteus(always, f"proteus{TUNED}", "Proteus, tuned"),
        Proteus(replace(always, headroom=1.5), f"proteus{CALM}", "Proteus, tuned at rest"),
        PromptAgnostic(always, f"pac{TUNED}", "PAC, tuned"),
        PromptAgnostic(at_rest, f"pac{CALM}", "PAC, tuned at rest"),
        Sommelier(replace(always, headroom=1.8), f"sommelier{TUNED}", "Sommelier, tuned"),
        VariantByBacklog(0.2, 0.5, always, f"infaas{TUNED}"),
        MeasuredThresholds(0.05, f"nirvana{TUNED}"),
        Cascade(always, f"cascade{TUNED}", "the cascade, tuned"),
    )


def all_policies() -> tuple[ServingPolicy, ...]:
    """Ours first, then every rival: `--policy all`."""
    return (
        PromptAware(),
        ThePaper(),
        Proteus(),
        PromptAgnostic(),
        Nirvana(),
        Sommelier(),
        InfaasAccuracy(),
        Cascade(),
        FEWER_STEPS_ONLY,
        ClipperHighAccuracy(),
        ClipperHighThroughput(),
        *tuned(),
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


def choose_policies(names: str, spec: PoolSpec, several: bool = False) -> tuple[ServingPolicy, ...]:
    """The policies of `NAME[,NAME...]` or `all`, in that order, each once. `several`: the workers hold several models.

    Ours does what the pool's gateways would do: with a Fixed mix its workers keep their levels. Rivals and ablations
    plan their own mix.

    Raises:
        UnknownPolicy: a name is of no policy.
    """
    wanted = [name.strip() for name in names.split(",")]
    every = (PromptAware(), *several_models(), PricedCascade()) if several else all_policies()
    if wanted == ["all"]:
        wanted = [policy.name for policy in every]
    known = {policy.name: policy for policy in every} if several else {name: policy_named(name) for name in wanted}
    known[OURS] = PromptAware(pinned=spec.pinned_workers)
    for name in wanted:
        if name not in known:
            raise UnknownPolicy(
                f"--policy: {name!r} is for pools of one model; with --model there are {', '.join(known)}"
            )
    return tuple(known[name] for name in dict.fromkeys(wanted))
