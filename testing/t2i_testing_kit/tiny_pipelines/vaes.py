"""Tiny random VAEs. `scale` is how many pixels a latent's side stands for."""

from typing import Any

from diffusers import (
    AutoencoderDC,
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLHunyuanImage,
    AutoencoderKLQwenImage,
)


def _blocks(scale: int, width: int) -> dict[str, Any]:
    count = scale.bit_length()
    return {
        "block_out_channels": (width,) * count,
        "down_block_types": ("DownEncoderBlock2D",) * count,
        "up_block_types": ("UpDecoderBlock2D",) * count,
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "sample_size": 32,
    }


def kl_vae(channels: int = 4, scale: int = 2, **options: Any) -> Any:
    return AutoencoderKL(latent_channels=channels, **_blocks(scale, 8), **options)


def flow_vae(channels: int = 4, scale: int = 2) -> Any:
    """As SD3, FLUX and their descendants have it: shifted, without quantisation convolutions."""
    return kl_vae(
        channels, scale, scaling_factor=1.5, shift_factor=0.06, use_quant_conv=False, use_post_quant_conv=False
    )


def flux2_vae() -> Any:
    return AutoencoderKLFlux2(latent_channels=4, use_quant_conv=False, use_post_quant_conv=False, **_blocks(2, 8))


def qwen_vae(scale: int = 4) -> Any:
    halvings = scale.bit_length() - 1
    return AutoencoderKLQwenImage(
        base_dim=4,
        z_dim=4,
        dim_mult=[1] * (halvings + 1),
        num_res_blocks=1,
        temperal_downsample=[False] + [True] * (halvings - 1),
        latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[1.0, 1.5, 0.8, 1.2],
    )


def dc_vae() -> Any:
    return AutoencoderDC(
        latent_channels=4,
        attention_head_dim=2,
        encoder_block_types=("ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "EfficientViTBlock"),
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_qkv_multiscales=((), (5,)),
        decoder_qkv_multiscales=((), (5,)),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=[1, 1],
        downsample_block_type="conv",
        upsample_block_type="interpolate",
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
        scaling_factor=0.41407,
    )


def hunyuan_vae() -> Any:
    return AutoencoderKLHunyuanImage(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        block_out_channels=(32, 32, 32, 32),
        layers_per_block=1,
        scaling_factor=0.75,
        spatial_compression_ratio=8,
        sample_size=128,
    )
