"""The state that a training run needs to continue after a stop: weights, averages, optimiser, step, time spent."""

import os
import time
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import nn
from transformers import BertModel, PreTrainedTokenizerFast

from t2i_scenes import text_model
from t2i_scenes.denoiser import build_unet
from t2i_scenes.hyperparameters import Hyperparameters


@dataclass
class TrainingState:
    """`average_*` are exponential moving averages; these are exported."""

    params: Hyperparameters
    tokenizer: PreTrainedTokenizerFast
    embedder: BertModel
    encoder: BertModel
    unet: UNet2DConditionModel
    average_encoder: BertModel
    average_unet: UNet2DConditionModel
    optimiser: torch.optim.AdamW
    step: int = 0
    cpu_s: float = 0.0

    @classmethod
    def start(
        cls,
        params: Hyperparameters,
        tokenizer: PreTrainedTokenizerFast,
        pretrained: BertModel,
        unet: UNet2DConditionModel,
    ) -> Self:
        """Keep `pretrained` frozen as the embedder, and train a copy of it with the UNet."""
        encoder = deepcopy(pretrained).train()
        groups = [
            {"params": list(unet.parameters()), "lr_share": 1.0},
            {"params": list(encoder.parameters()), "lr_share": params.text_lr_fraction},
        ]
        return cls(
            params=params,
            tokenizer=tokenizer,
            embedder=pretrained.eval(),
            encoder=encoder,
            unet=unet.train(),
            average_encoder=deepcopy(encoder).requires_grad_(False),
            average_unet=deepcopy(unet).requires_grad_(False),
            optimiser=torch.optim.AdamW(groups, lr=params.lr, weight_decay=params.weight_decay, betas=(0.9, 0.99)),
        )

    def update(self, loss: torch.Tensor, lr_fraction: float) -> None:
        """One optimiser step and one step of the moving averages."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.params.lr * lr_fraction * group["lr_share"]
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        parameters = [*self.unet.parameters(), *self.encoder.parameters()]
        nn.utils.clip_grad_norm_(parameters, self.params.max_gradient_norm)
        self.optimiser.step()
        self.step += 1
        decay = min(self.params.ema_decay, (1 + self.step) / (10 + self.step))  # forget the random start quickly
        averages = [*self.average_unet.parameters(), *self.average_encoder.parameters()]
        with torch.no_grad():
            torch._foreach_lerp_(averages, parameters, 1 - decay)

    def save(self, path: Path) -> None:
        """Write another file and rename it, so that a stop in the middle leaves the last checkpoint intact."""
        modules = {name: getattr(self, name).state_dict() for name in _MODULES}
        spent = self.cpu_s + time.process_time()
        side = path.with_suffix(".part")
        torch.save({**modules, "optimiser": self.optimiser.state_dict(), "step": self.step, "cpu_s": spent}, side)
        os.replace(side, path)

    @classmethod
    def load(cls, path: Path, params: Hyperparameters) -> Self:
        saved = torch.load(path, weights_only=True)
        tokenizer = text_model.build_tokenizer(params.text.max_caption_tokens)
        unet = build_unet(params.unet, params.text.hidden_size).to(memory_format=torch.channels_last)
        unet.set_attn_processor(AttnProcessor())
        state = cls.start(params, tokenizer, text_model.build_encoder(tokenizer, params.text), unet)
        for name in _MODULES:
            getattr(state, name).load_state_dict(saved[name])
        state.optimiser.load_state_dict(saved["optimiser"])
        state.step, state.cpu_s = saved["step"], saved["cpu_s"]
        return state


_MODULES = ("embedder", "encoder", "unet", "average_encoder", "average_unet")
