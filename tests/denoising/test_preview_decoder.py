"""Previews by a small decoder: what it draws of the latent, and no decode of the model's own VAE."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny
from PIL import Image as Pillow

from t2i_api.model import ModelPart
from t2i_sources.hub_files import choose_decoder_files
from t2i_testing_kit.tiny_pipelines.families import FAMILIES, save_family
from t2i_testing_kit.tiny_pipelines.in_engine import TinyEngine
from t2i_testing_kit.tiny_pipelines.stock import TinyRequest
from t2i_worker.errors import ModelNotFound, ModelUnsupported
from t2i_worker.images import encode_preview
from t2i_worker.pipelines.preview_decoder import load_preview_decoder
from t2i_worker.starting import find_preview_decoder


def save_decoder(folder: Path, channels: int = 4) -> Path:
    """It doubles each side, as the tiny models' VAEs do."""
    torch.manual_seed(3)
    blocks = {"encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8)}
    counts = {"num_encoder_blocks": (1, 1), "num_decoder_blocks": (1, 1)}
    AutoencoderTiny(latent_channels=channels, upsampling_scaling_factor=2, **blocks, **counts).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", ["sdxl", "sd3", "flux-dev"])
def test_preview_is_what_the_small_decoder_draws(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stock pipeline unpacks and scales the latent as the decoder's own settings say."""
    engine = TinyEngine(name, save_family(name, tmp_path / "model"))
    (run,) = engine.draw([TinyRequest(seed=1)])
    plain = run.stock.preview(run.final)
    load_preview_decoder(engine.pipeline, save_decoder(tmp_path / "decoder"))
    monkeypatch.setattr(engine.pipeline.stock.vae, "decode", lambda *_, **__: pytest.fail("the model's own VAE ran"))
    shown = run.stock.preview(run.final)
    assert shown != plain
    family, stock = FAMILIES[name], engine.pipeline.stock
    latent = run.final
    if name == "flux-dev":
        latent = stock._unpack_latents(latent, family.height, family.width, stock.vae_scale_factor)
    with torch.inference_mode():
        pixels = stock.image_processor.postprocess(engine.pipeline.preview_vae.decode(latent).sample, "np")
    assert shown == encode_preview((pixels[0] * 255).round().astype(np.uint8))
    assert Pillow.open(io.BytesIO(shown)).size == (family.width, family.height)


def test_decoder_of_another_model_is_refused(tmp_path: Path) -> None:
    """At the start, and by the field's name."""
    engine = TinyEngine("sdxl", save_family("sdxl", tmp_path / "model"))
    with pytest.raises(ModelUnsupported, match=r"model\.previewDecoder reads latents of 16 channels, the model has 4"):
        load_preview_decoder(engine.pipeline, save_decoder(tmp_path / "decoder", 16))
    with pytest.raises(ModelUnsupported, match=r"model\.previewDecoder cannot be loaded"):
        load_preview_decoder(engine.pipeline, tmp_path)


def test_decoder_is_found_by_its_address(tmp_path: Path) -> None:
    source = {"source": "builtin://scenes"}
    folder = save_decoder(tmp_path / "decoder")
    found = ModelPart(**source, preview_decoder=folder.as_uri())
    assert find_preview_decoder(found, tmp_path) == folder
    assert find_preview_decoder(ModelPart(**source), tmp_path) is None
    with pytest.raises(ModelNotFound, match=r"model\.previewDecoder .* must be a folder of an AutoencoderTiny"):
        find_preview_decoder(ModelPart(**source, preview_decoder=tmp_path.as_uri()), tmp_path)


def test_of_a_hub_only_the_decoder_itself_is_downloaded() -> None:
    """Its repositories hold the same weights once more for other programs."""
    names = ["README.md", "config.json", "diffusion_pytorch_model.bin", "diffusion_pytorch_model.safetensors"]
    names += ["taesdxl_decoder.safetensors", "taesdxl_encoder.pth"]
    assert choose_decoder_files(names, (), "") == ["config.json", "diffusion_pytorch_model.safetensors"]
