"""Write a model folder from a checkpoint: `python -m t2i_scenes.export --checkpoint FILE --to DIR`.

Any checkpoint will do, also that of a training run in progress. The folder is replaced in one rename, so that nobody
ever loads half a model.
"""

import argparse
import json
import shutil
from dataclasses import replace
from pathlib import Path

import diffusers
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.models.attention_processor import AttnProcessor2_0
from transformers import BertModel

from t2i_scenes.denoiser import LATENT_SCALE, LATENT_SHIFT
from t2i_scenes.embedder import export_embedder
from t2i_scenes.hyperparameters import Hyperparameters
from t2i_scenes.model_folder import ModelConstants, model_path
from t2i_scenes.training_state import TrainingState

#: The schedule and guidance served by default; the model card shows how they were chosen.
DEFAULT_NUM_INFERENCE_STEPS = 12
DEFAULT_GUIDANCE_SCALE = 2.0
SHIFT = 1.0
#: Of the distilled model, which has guidance in its weights; its card shows how the steps were chosen.
DISTILLED_NUM_INFERENCE_STEPS = 4
DISTILLED_GUIDANCE_SCALE = 1.0
CONFIG_NAME = "config.json"
ORIGIN = "_name_or_path"  # where a module was loaded from: a path of this machine, and part of the model's digest
#: What the distilled model shares with the one that it was distilled from.
SHARED_PARTS = ("text_encoder", "tokenizer", "scheduler")


def export_state(state: TrainingState, to: Path) -> None:
    """Write averaged weights in fp16, tokenizer, scheduler, embedder and index into the folder `to`."""
    side = to.with_name(f".{to.name}.part")
    shutil.rmtree(side, ignore_errors=True)
    side.mkdir(parents=True)
    state.average_unet.set_attn_processor(AttnProcessor2_0())
    _save_fp16(state.average_unet, side / "unet")
    _save_fp16(state.average_encoder, side / "text_encoder")
    state.tokenizer.save_pretrained(side / "tokenizer")
    FlowMatchEulerDiscreteScheduler(shift=SHIFT).save_pretrained(side / "scheduler")
    export_embedder(state.embedder, state.tokenizer, side / "embedder", state.params.seed)
    ModelConstants(
        latent_patch_size=state.params.unet.latent_patch_size,
        latent_scale=LATENT_SCALE,
        latent_shift=LATENT_SHIFT,
        max_caption_tokens=state.params.text.max_caption_tokens,
        default_num_inference_steps=DEFAULT_NUM_INFERENCE_STEPS,
        default_guidance_scale=DEFAULT_GUIDANCE_SCALE,
    ).write(side, diffusers.__version__)
    _swap(side, to)


def export_student(unet: diffusers.UNet2DConditionModel, to: Path) -> None:
    """Write a distilled UNet in fp16 into the folder `to`, with all other parts of the model of this package."""
    side = to.with_name(f".{to.name}.part")
    shutil.rmtree(side, ignore_errors=True)
    side.mkdir(parents=True)
    unet.set_attn_processor(AttnProcessor2_0())
    _save_fp16(unet, side / "unet")
    for part in SHARED_PARTS:
        shutil.copytree(model_path() / part, side / part)
    replace(
        ModelConstants.read(model_path()),
        default_num_inference_steps=DISTILLED_NUM_INFERENCE_STEPS,
        default_guidance_scale=DISTILLED_GUIDANCE_SCALE,
    ).write(side, diffusers.__version__)
    _swap(side, to)


def _save_fp16(module: diffusers.UNet2DConditionModel | BertModel, to: Path) -> None:
    module.to(dtype=torch.float16, memory_format=torch.contiguous_format).save_pretrained(to, safe_serialization=True)
    config = json.loads((to / CONFIG_NAME).read_text())
    if config.pop(ORIGIN, None) is not None:
        (to / CONFIG_NAME).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def _swap(side: Path, to: Path) -> None:
    """Replace `to` by `side`. The old folder is moved away first, because a rename cannot replace a full folder."""
    old = to.with_name(f".{to.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if to.exists():
        to.rename(old)
    side.rename(to)
    shutil.rmtree(old, ignore_errors=True)


def export_checkpoint(checkpoint: Path, to: Path) -> None:
    export_state(TrainingState.load(checkpoint, Hyperparameters()), to)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--to", type=Path, required=True, help="model folder to write or replace")
    arguments = parser.parse_args()
    export_checkpoint(arguments.checkpoint, arguments.to)


if __name__ == "__main__":
    main()
