"""`scheduler_config.json` as the repositories of the models ship it, left-over keys of other schedulers included."""

from collections.abc import Mapping
from typing import Any

SchedulerFile = Mapping[str, Any]


def scheduler_file(name: str, *parts: SchedulerFile, **keys: Any) -> SchedulerFile:
    """Later parts win. Keys that the class does not know stay: real files have them."""
    merged: dict[str, Any] = {"_class_name": name, "num_train_timesteps": 1000}
    for part in parts:
        merged |= {key: value for key, value in part.items() if key != "_class_name"}
    return merged | keys


_LATENT_DIFFUSION = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
}
SD15 = scheduler_file("PNDMScheduler", _LATENT_DIFFUSION)
SD21 = scheduler_file("DDIMScheduler", _LATENT_DIFFUSION, prediction_type="v_prediction")
SDXL = scheduler_file(
    "EulerDiscreteScheduler",
    _LATENT_DIFFUSION,
    interpolation_type="linear",
    prediction_type="epsilon",
    sample_max_value=1.0,
    timestep_spacing="leading",
    use_karras_sigmas=False,
)
SDXL_TURBO = scheduler_file("EulerAncestralDiscreteScheduler", SDXL, timestep_spacing="trailing")
SDXL_LIGHTNING = scheduler_file("EulerDiscreteScheduler", SDXL, timestep_spacing="trailing")
LCM = scheduler_file("LCMScheduler", SDXL, original_inference_steps=50, timestep_scaling=10.0)
TCD = scheduler_file("TCDScheduler", SDXL, original_inference_steps=50)
PLAYGROUND = {
    "_class_name": "EDMDPMSolverMultistepScheduler",
    "algorithm_type": "dpmsolver++",
    "final_sigmas_type": "zero",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "rho": 7.0,
    "sigma_data": 0.5,
    "sigma_max": 80.0,
    "sigma_min": 0.002,
    "solver_order": 2,
    "solver_type": "midpoint",
}
_FLOW = "FlowMatchEulerDiscreteScheduler"
_SHIFTED_BY_SIZE = {"base_image_seq_len": 256, "base_shift": 0.5, "max_image_seq_len": 4096, "max_shift": 1.15}
SD3 = scheduler_file(_FLOW, shift=3.0)
FLUX_DEV = scheduler_file(_FLOW, _SHIFTED_BY_SIZE, shift=3.0, use_dynamic_shifting=True)
FLUX_SCHNELL = scheduler_file(_FLOW, _SHIFTED_BY_SIZE, shift=1.0, use_dynamic_shifting=False)
FLUX2 = scheduler_file(_FLOW, FLUX_DEV, time_shift_type="exponential", shift_terminal=None)
QWEN = scheduler_file(
    _FLOW,
    _SHIFTED_BY_SIZE,
    max_image_seq_len=8192,
    max_shift=0.9,
    shift=1.0,
    shift_terminal=0.02,
    time_shift_type="exponential",
    use_dynamic_shifting=True,
)
Z_IMAGE = scheduler_file(_FLOW, shift=6.0, use_dynamic_shifting=False)
Z_IMAGE_TURBO = scheduler_file(_FLOW, shift=3.0, use_dynamic_shifting=False)
SANA = scheduler_file(
    "DPMSolverMultistepScheduler",
    algorithm_type="dpmsolver++",
    beta_schedule="linear",
    beta_start=0.0001,
    beta_end=0.02,
    final_sigmas_type="zero",
    flow_shift=3.0,
    lower_order_final=True,
    prediction_type="flow_prediction",
    solver_order=2,
    solver_type="midpoint",
    use_flow_sigmas=True,
)
SANA_SPRINT = {
    "_class_name": "SCMScheduler",
    "num_train_timesteps": 1000,
    "prediction_type": "trigflow",
    "sigma_data": 0.5,
}
PIXART = scheduler_file("DPMSolverMultistepScheduler", SANA, prediction_type="epsilon", use_flow_sigmas=False)
LUMINA2 = scheduler_file(_FLOW, shift=6.0, use_dynamic_shifting=False)
HUNYUAN_IMAGE = scheduler_file(_FLOW, shift=5.0, use_dynamic_shifting=False)
CHROMA = scheduler_file(_FLOW, shift=1.0, use_dynamic_shifting=False, use_beta_sigmas=True)
KANDINSKY5 = scheduler_file(_FLOW, shift=5.0, use_dynamic_shifting=False)
GLM_IMAGE = scheduler_file(
    _FLOW, _SHIFTED_BY_SIZE, base_shift=0.25, max_shift=0.75, time_shift_type="linear", use_dynamic_shifting=True
)
#: Samplers that people put on SDXL with `X.from_config(pipe.scheduler.config)`, so with SDXL's left-over keys.
ON_SDXL: Mapping[str, SchedulerFile] = {
    "ddim": scheduler_file("DDIMScheduler", SDXL),
    "euler": SDXL_LIGHTNING,
    "euler-a": scheduler_file("EulerAncestralDiscreteScheduler", SDXL),
    "dpm++2m-karras": scheduler_file("DPMSolverMultistepScheduler", SDXL, use_karras_sigmas=True),
    "dpm++2m-sde-karras": scheduler_file(
        "DPMSolverMultistepScheduler", SDXL, algorithm_type="sde-dpmsolver++", use_karras_sigmas=True
    ),
    "unipc": scheduler_file("UniPCMultistepScheduler", SDXL),
    "lcm": LCM,
    "tcd": TCD,
    "heun": scheduler_file("HeunDiscreteScheduler", SDXL),
    "pndm": scheduler_file("PNDMScheduler", SDXL),
    "deis": scheduler_file("DEISMultistepScheduler", SDXL),
    "lms": scheduler_file("LMSDiscreteScheduler", SDXL),
    "dpm++singlestep": scheduler_file("DPMSolverSinglestepScheduler", SDXL),
    "ddpm": scheduler_file("DDPMScheduler", SDXL),
    "kdpm2": scheduler_file("KDPM2DiscreteScheduler", SDXL),
    "sa-solver": scheduler_file("SASolverScheduler", SDXL),
}
