"""Train the whole model from scratch: `python -m t2i_scenes.train --out DIR`, about an hour on two cores.

It pre-trains the text encoder, trains UNet and text encoder jointly by flow matching, and exports the model folder.
After a stop the same command continues from the last checkpoint. Data are rendered when needed (2 % of the time) and
never stored. Every step seeds its own random numbers, so a resumed run sees the same data.
"""

import argparse
import logging
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from diffusers.models.attention_processor import AttnProcessor
from transformers import BertModel, PreTrainedTokenizerFast

from t2i_scenes import text_model
from t2i_scenes.captions import caption
from t2i_scenes.denoiser import build_unet, to_latents
from t2i_scenes.generating import sample_scene
from t2i_scenes.hyperparameters import Hyperparameters
from t2i_scenes.rendering import render
from t2i_scenes.training_state import TrainingState

log = logging.getLogger("t2i_scenes.train")


class TrainingBatch(NamedTuple):
    """Latents [B,C,h,w] and their captions; some are empty."""

    latents: torch.Tensor
    captions: list[str]


def training_batch(params: Hyperparameters, step: int) -> TrainingBatch:
    rng = np.random.default_rng((params.seed, step))
    scenes = [sample_scene(rng) for _ in range(params.batch)]
    captions = ["" if rng.random() < params.empty_caption_fraction else caption(scene, rng) for scene in scenes]
    images = np.stack([render(scene, rng) for scene in scenes])
    return TrainingBatch(to_latents(images, params.unet.latent_patch_size), captions)


def lr_fraction(params: Hyperparameters, step: int) -> float:
    """Linear warm-up, then a cosine down to `final_lr_fraction`. Steps count from 1."""
    warm = min(1.0, step / params.warmup_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, step / params.steps)))
    return warm * (params.final_lr_fraction + (1 - params.final_lr_fraction) * cosine)


def flow_matching_loss(state: TrainingState, params: Hyperparameters, step: int) -> torch.Tensor:
    """Mean squared error of the velocity noise - x0, at a random noise level for each sample."""
    x0, captions = training_batch(params, step)
    generator = torch.Generator().manual_seed(params.seed * 1_000_003 + step)
    sigma = torch.sigmoid(
        params.sigma_logit_mean + params.sigma_logit_std * torch.randn(len(x0), generator=generator)
    ).view(-1, 1, 1, 1)
    noise = torch.randn(x0.shape, generator=generator)
    noisy = ((1 - sigma) * x0 + sigma * noise).to(memory_format=torch.channels_last)  # faster convolutions on a CPU
    hidden, cls = text_model.encode(state.encoder, state.tokenizer, captions)
    velocity = state.unet(noisy, sigma.flatten() * 1000, hidden, class_labels=cls).sample
    return torch.nn.functional.mse_loss(velocity, noise - x0)


def pretrained_encoder(params: Hyperparameters, tokenizer: PreTrainedTokenizerFast, kept: Path) -> BertModel:
    """The pre-trained text encoder. The file `kept` holds its weights between runs."""
    if kept.exists():
        encoder = text_model.build_encoder(tokenizer, params.text)
        encoder.load_state_dict(torch.load(kept, weights_only=True))
        return encoder
    encoder = text_model.pretrain(tokenizer, params.text, params.seed, log.info)
    torch.save(encoder.state_dict(), kept)
    return encoder


def fresh_state(params: Hyperparameters, out: Path) -> TrainingState:
    tokenizer = text_model.build_tokenizer(params.text.max_caption_tokens)
    pretrained = pretrained_encoder(params, tokenizer, out / "pretrained_text.pt")
    torch.manual_seed(params.seed + 1)
    unet = build_unet(params.unet, params.text.hidden_size).to(memory_format=torch.channels_last)
    unet.set_attn_processor(AttnProcessor())  # its backward is faster than SDPA's at 64 positions
    return TrainingState.start(params, tokenizer, pretrained, unet)


def train(params: Hyperparameters, out: Path) -> TrainingState:
    """Train, from `out`/checkpoint.pt if it exists."""
    checkpoint = out / "checkpoint.pt"
    state = TrainingState.load(checkpoint, params) if checkpoint.exists() else fresh_state(params, out)
    log.info("start at step %d of %d", state.step, params.steps)
    began, first_step, saved, losses = time.monotonic(), state.step, time.monotonic(), []
    if not checkpoint.exists():
        state.save(checkpoint)
    while state.step < params.steps:
        step = state.step + 1
        loss = flow_matching_loss(state, params, step)
        state.update(loss, lr_fraction(params, step))
        losses.append(float(loss.detach()))
        if step % 20 == 0:
            elapsed = time.monotonic() - began
            rate = (step - first_step) / elapsed
            loss_now, left_min = float(np.mean(losses[-20:])), (params.steps - step) / rate / 60
            seen = f"step {step}/{params.steps}  loss {loss_now:.4f}  {rate * params.batch:.1f} samples/s"
            log.info("%s  ETA %.1f min", seen, left_min)
        if time.monotonic() - saved > params.checkpoint_every_s or step == params.steps:
            state.save(checkpoint)
            saved = time.monotonic()
    return state


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoint.pt and the exported model/")
    parser.add_argument("--steps", type=int, default=Hyperparameters().steps)
    parser.add_argument("--threads", type=int, default=Hyperparameters().threads)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    params = replace(Hyperparameters(), steps=arguments.steps, threads=arguments.threads)
    torch.set_num_threads(params.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    train(params, arguments.out)
    from t2i_scenes.export import export_checkpoint

    export_checkpoint(arguments.out / "checkpoint.pt", arguments.out / "model")


if __name__ == "__main__":
    main()
