"""The architecture of the denoiser, and the conversion between pictures and latents."""

import numpy as np
import numpy.typing as npt
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from t2i_scenes.hyperparameters import UNetHyperparameters
from t2i_scenes.scene import CANVAS_PX

#: Mean and inverse standard deviation of pixels in -1..1 over rendered scenes (measured on 3,000 pictures).
LATENT_SHIFT = 0.2405
LATENT_SCALE = 2.2165


def build_unet(sizes: UNetHyperparameters, text_size: int) -> UNet2DConditionModel:
    """Two levels. Only the lower resolution attends to the caption; [CLS] is added to the time embedding."""
    channels = 3 * sizes.latent_patch_size**2
    return UNet2DConditionModel(
        sample_size=CANVAS_PX // sizes.latent_patch_size,
        in_channels=channels,
        out_channels=channels,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DCrossAttn",
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=sizes.block_channels,
        layers_per_block=sizes.layers_per_block,
        cross_attention_dim=text_size,
        attention_head_dim=sizes.heads,
        norm_num_groups=sizes.norm_groups,
        class_embed_type="projection",
        projection_class_embeddings_input_dim=text_size,
    )


def to_latents(images: npt.NDArray[np.uint8], patch_size: int) -> Tensor:
    """uint8 [B,48,48,3] -> float32 [B,3*p*p,48/p,48/p] of about unit variance."""
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    return torch.nn.functional.pixel_unshuffle((pixels - LATENT_SHIFT) * LATENT_SCALE, patch_size)
