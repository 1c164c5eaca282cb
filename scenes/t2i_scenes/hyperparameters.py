"""Every number that training depends on."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TextHyperparameters:
    """The caption encoder and its attribute pre-training."""

    hidden_size: int = 128
    layers: int = 3
    heads: int = 4
    intermediate_size: int = 320
    #: Longest caption in tokens, with [CLS] and [SEP]; longer ones are cut.
    max_caption_tokens: int = 28
    pretraining_steps: int = 700
    pretraining_batch: int = 192
    pretraining_lr: float = 1.0e-3


@dataclass(frozen=True, slots=True)
class UNetHyperparameters:
    """The denoiser; latents are pixel_unshuffle(latent_patch_size) of the canvas."""

    latent_patch_size: int = 3
    block_channels: tuple[int, int] = (64, 96)
    layers_per_block: int = 1
    heads: int = 3
    norm_groups: int = 16


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """Pre-train the text encoder, then train the UNet and a copy of the encoder jointly by flow matching."""

    seed: int = 20260
    threads: int = 2
    steps: int = 6400
    batch: int = 48
    lr: float = 1.2e-3
    #: Learning rate of the text encoder, as a share of the UNet's.
    text_lr_fraction: float = 0.15
    warmup_steps: int = 100
    #: The cosine ends at this share of the peak learning rate.
    final_lr_fraction: float = 0.02
    weight_decay: float = 0.01
    max_gradient_norm: float = 1.0
    ema_decay: float = 0.998
    #: Share of captions replaced by the empty one, which classifier-free guidance needs.
    empty_caption_fraction: float = 0.10
    #: Noise level of a training sample: sigmoid(normal(mean, std)).
    sigma_logit_mean: float = 0.0
    sigma_logit_std: float = 1.0
    checkpoint_every_s: float = 180.0
    text: TextHyperparameters = TextHyperparameters()
    unet: UNetHyperparameters = UNetHyperparameters()
