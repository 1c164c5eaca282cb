"""Samplers that a request may choose instead of the model's own, as `from_config` of diffusers makes them.

Schedulers of one kind of noise stand in for each other. Between kinds they do not: the image would be wrong in silence.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import diffusers

from t2i_runtime.errors import Violation
from t2i_worker.errors import JobInvalid

FIELD = "drawing.sampler"
NONE: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Sampler:
    """`kind` is a class of diffusers, `flow_kind` the one for models of flow matching; empty: the same."""

    kind: str
    flow_kind: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    def kind_for(self, is_flow: bool) -> str:
        """Empty: none. Karras' noise levels belong to another kind of noise: flow matching gets values not finite."""
        if is_flow and self.options.get("use_karras_sigmas"):
            return ""
        return (is_flow and self.flow_kind) or self.kind


_MULTISTEP = "DPMSolverMultistepScheduler"
_SDE = "sde-dpmsolver++"
#: The names that people know from other programs. The options are what their recipes for diffusers set.
SAMPLERS: Mapping[str, Sampler] = {
    "ddim": Sampler("DDIMScheduler", options={"clip_sample": False}),
    "dpm++-2m": Sampler(_MULTISTEP),
    "dpm++-2m-karras": Sampler(_MULTISTEP, options={"use_karras_sigmas": True}),
    "dpm++-2m-sde": Sampler(_MULTISTEP, options={"algorithm_type": _SDE}),
    "dpm++-2m-sde-karras": Sampler(_MULTISTEP, options={"algorithm_type": _SDE, "use_karras_sigmas": True}),
    "euler": Sampler("EulerDiscreteScheduler", "FlowMatchEulerDiscreteScheduler"),
    "euler-a": Sampler("EulerAncestralDiscreteScheduler"),
    "heun": Sampler("HeunDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"),
    "lcm": Sampler("LCMScheduler", "FlowMatchLCMScheduler"),
    "pndm": Sampler("PNDMScheduler", options={"skip_prk_steps": True}),
    "tcd": Sampler("TCDScheduler"),
    "unipc": Sampler("UniPCMultistepScheduler"),
}
#: Flow matching by solvers that know other noise too.
_AS_FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
_BOTH = frozenset(
    {
        "DEISMultistepScheduler",
        "DPMSolverMultistepScheduler",
        "DPMSolverSinglestepScheduler",
        "SASolverScheduler",
        "UniPCMultistepScheduler",
    }
)
_FLOW = _BOTH | {"FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler", "FlowMatchLCMScheduler"}
_DISCRETE = _BOTH | {
    "DDIMScheduler",
    "DDPMScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LCMScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "TCDScheduler",
}
_EDM = frozenset({"EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"})


def suited_kinds(own: Any) -> frozenset[str]:
    """Classes of diffusers for the kind of noise of a model whose own noise scheduler is `own`."""
    return _FLOW if _is_flow(own) else next((kinds for kinds in (_DISCRETE, _EDM) if type(own).__name__ in kinds), NONE)


def make_scheduler(name: str, own: Any, field: str = FIELD, refused: frozenset[str] = NONE) -> Any:
    """A noise scheduler of this name for a model whose own one is `own`; `field` is where the name was given.

    `refused` are classes that the model's pipeline draws nothing with.

    Raises:
        JobInvalid: there is none of this name, or it does not suit the model.
    """
    own_name = type(own).__name__
    if name == own_name:
        return own
    is_flow, suited = _is_flow(own), suited_kinds(own) - refused
    sampler = SAMPLERS.get(name.lower()) or Sampler(name)
    kind = sampler.kind_for(is_flow)
    if kind not in suited:
        raise JobInvalid([Violation(field, _refusal(name, own_name, suited, is_flow))])
    options = dict(sampler.options)
    if is_flow and not kind.startswith("FlowMatch"):
        options |= {**_AS_FLOW, "flow_shift": own.config.get("shift", own.config.get("flow_shift", 1.0))}
    return getattr(diffusers, kind).from_config(own.config, **options)


def _is_flow(own: Any) -> bool:
    return type(own).__name__.startswith("FlowMatch") or bool(own.config.get("use_flow_sigmas"))


def _refusal(name: str, own_name: str, suited: frozenset[str], is_flow: bool) -> str:
    if not suited:
        return f"this model draws with {own_name} only; leave it out"
    names = sorted(key for key, one in SAMPLERS.items() if one.kind_for(is_flow) in suited)
    known = hasattr(diffusers, name) or name.lower() in SAMPLERS
    why = f"does not suit this model, which draws with {own_name}" if known else "is not known"
    return f"{why}; take one of {', '.join([*names, *sorted(suited)])}"
