"""The table of tiny model folders: what people serve, each with the noise scheduler file of its real repository."""

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import diffusers
import torch

from t2i_testing_kit.tiny_pipelines import scheduler_files as files
from t2i_testing_kit.tiny_pipelines import transformer_pipelines as transformers_
from t2i_testing_kit.tiny_pipelines import unet_pipelines as unets

SEED = 7


@dataclass(frozen=True)
class TinyFamily:
    """`make(scheduler)` builds the pipeline. `guidance` and `steps` are what people ask such a model for.

    `extra` are further arguments of `__call__`, mostly against sizes that real models are held to. `fixed_steps`: it
    makes no other number. `negative` is False where a negative prompt has an effect only with another argument.
    """

    make: Callable[[Any], Any]
    scheduler: files.SchedulerFile
    guidance: float = 3.0
    steps: int = 5
    width: int = 48
    height: int = 32
    guidance_argument: str = "guidance_scale"
    extra: Mapping[str, Any] = field(default_factory=dict)
    takes_image: bool = False
    fixed_steps: bool = False
    negative: bool = True


_sdxl = unets.stable_diffusion_xl
_part = functools.partial
_NO_BINS = {"use_resolution_binning": False}
FAMILIES: Mapping[str, TinyFamily] = {
    "sd15": TinyFamily(_part(unets.stable_diffusion, checked=True), files.SD15, guidance=7.5),
    "sd15-flagged": TinyFamily(_part(unets.stable_diffusion, checked=True, flags_all=True), files.SD15, guidance=7.5),
    "sd21": TinyFamily(unets.stable_diffusion, files.SD21, guidance=7.5),
    "lcm": TinyFamily(unets.latent_consistency, files.LCM, guidance=8.5, steps=4),
    "sdxl": TinyFamily(_sdxl, files.SDXL, guidance=5.0),
    "sdxl-turbo": TinyFamily(_sdxl, files.SDXL_TURBO, guidance=0.0, steps=4),
    "sdxl-lightning": TinyFamily(_sdxl, files.SDXL_LIGHTNING, guidance=0.0, steps=4),
    "sdxl-lcm": TinyFamily(_part(_sdxl, time_cond_proj_dim=16), files.LCM, guidance=8.0, steps=4),
    "sdxl-hyper": TinyFamily(_sdxl, files.TCD, guidance=0.0, steps=4),
    "playground-v2.5": TinyFamily(_part(_sdxl, vae=unets.PLAYGROUND_LATENTS), files.PLAYGROUND),
    "sd3": TinyFamily(transformers_.stable_diffusion_3, files.SD3, guidance=7.0),
    "sd3-without-t5": TinyFamily(_part(transformers_.stable_diffusion_3, t5=False), files.SD3, guidance=7.0),
    "sd3.5": TinyFamily(
        _part(transformers_.stable_diffusion_3, qk_norm="rms_norm", dual_attention_layers=(0,)), files.SD3, guidance=4.5
    ),
    "flux-dev": TinyFamily(transformers_.flux, files.FLUX_DEV, guidance=3.5, negative=False),
    "flux-schnell": TinyFamily(
        _part(transformers_.flux, guidance_embeds=False), files.FLUX_SCHNELL, guidance=0.0, steps=4, negative=False
    ),
    "flux-kontext": TinyFamily(
        _part(transformers_.flux, kind="FluxKontextPipeline"),
        files.FLUX_DEV,
        guidance=2.5,
        extra={"max_area": 48 * 32, "_auto_resize": False},
        takes_image=True,
        negative=False,
    ),
    "flux2-dev": TinyFamily(transformers_.flux2_dev, files.FLUX2, guidance=4.0),
    "flux2-klein": TinyFamily(_part(transformers_.flux2_klein, distilled=True), files.FLUX2, guidance=1.0, steps=4),
    "flux2-klein-base": TinyFamily(_part(transformers_.flux2_klein, distilled=False), files.FLUX2, guidance=4.0),
    "qwen-image": TinyFamily(transformers_.qwen_image, files.QWEN, guidance=4.0, guidance_argument="true_cfg_scale"),
    "qwen-image-edit": TinyFamily(
        _part(transformers_.qwen_image, edit=True),
        files.QWEN,
        guidance=4.0,
        guidance_argument="true_cfg_scale",
        width=64,
        takes_image=True,
    ),
    "z-image": TinyFamily(transformers_.z_image, files.Z_IMAGE, guidance=4.0),
    "z-image-turbo": TinyFamily(transformers_.z_image, files.Z_IMAGE_TURBO, guidance=0.0),
    "sana": TinyFamily(transformers_.sana, files.SANA, guidance=4.5, width=64, extra=_NO_BINS),
    "sana-sprint": TinyFamily(
        _part(transformers_.sana, sprint=True),
        files.SANA_SPRINT,
        guidance=4.5,
        steps=2,
        width=64,
        extra=_NO_BINS,
        fixed_steps=True,
    ),
    "pixart-sigma": TinyFamily(transformers_.pixart_sigma, files.PIXART, guidance=4.5, extra=_NO_BINS),
    "lumina2": TinyFamily(transformers_.lumina2, files.LUMINA2, guidance=4.0),
    "hunyuan-image": TinyFamily(
        transformers_.hunyuan_image, files.HUNYUAN_IMAGE, guidance=3.25, guidance_argument="distilled_guidance_scale"
    ),
    "hunyuan-image-distilled": TinyFamily(
        _part(transformers_.hunyuan_image, distilled=True),
        files.HUNYUAN_IMAGE,
        guidance=3.25,
        guidance_argument="distilled_guidance_scale",
    ),
    "chroma": TinyFamily(transformers_.chroma, files.CHROMA),
    "kandinsky5": TinyFamily(transformers_.kandinsky5, files.KANDINSKY5, guidance=3.5),
    "ovis-image": TinyFamily(transformers_.ovis_image, files.FLUX_DEV, guidance=5.0),
    "glm-image": TinyFamily(transformers_.glm_image, files.GLM_IMAGE, guidance=1.5, width=64),
    **{f"sdxl+{name}": TinyFamily(_sdxl, file, guidance=5.0) for name, file in files.ON_SDXL.items()},
}


def save_family(name: str, folder: Path) -> Path:
    """Write the model folder of a family as its repository has it; the same weights each time."""
    family = FAMILIES[name]
    scheduler = getattr(diffusers, family.scheduler["_class_name"]).from_config(dict(family.scheduler))
    torch.manual_seed(SEED)
    family.make(scheduler).save_pretrained(folder)
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(dict(family.scheduler)))
    return folder


def in_any_size(pipeline: Any) -> Any:
    """Let a loaded pipeline draw tiny images: Kandinsky 5 takes sizes of about a megapixel only."""
    if hasattr(pipeline, "resolutions"):
        family = FAMILIES["kandinsky5"]
        pipeline.resolutions = [(family.width, family.height)]
    return pipeline
