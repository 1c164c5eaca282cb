"""A small decoder that shows previews: diffusers' AutoencoderTiny in place of the model's own VAE."""

from pathlib import Path
from typing import Any

from diffusers import AutoencoderTiny

from t2i_worker.errors import ModelUnsupported
from t2i_worker.pipelines.loaded import LoadedPipeline


def load_preview_decoder(pipeline: LoadedPipeline, folder: Path) -> None:
    """Load it onto the pipeline's device; previews are decoded by it from now on.

    Raises:
        ModelUnsupported: the folder holds none, or one for latents of another kind.
    """
    try:
        decoder: Any = AutoencoderTiny.from_pretrained(folder, dtype=pipeline.dtype, local_files_only=True)
    except Exception as error:  # each library that reads files raises its own kinds
        raise ModelUnsupported(f"model.previewDecoder cannot be loaded: {type(error).__name__}: {error}") from error
    own, takes = _channels(getattr(pipeline.stock, "vae", None)), _channels(decoder)
    if own != takes:
        raise ModelUnsupported(
            f"model.previewDecoder reads latents of {takes} channels, the model has {own or 'no VAE'}"
        )
    pipeline.preview_vae = decoder.to(pipeline.device).eval()


def _channels(vae: Any) -> int:
    return int(getattr(getattr(vae, "config", None), "latent_channels", 0))
