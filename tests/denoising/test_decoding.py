"""Decoding: pixels that are not finite are no image, texts are tokenized one at a time."""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

from t2i_worker.engine.decoding import Decoder
from t2i_worker.errors import NotFinite
from t2i_worker.jobs import Tally
from t2i_worker.pipelines import PipelineAdapter

Load = Callable[..., PipelineAdapter]


def latent_of(adapter: PipelineAdapter) -> Tensor:
    return adapter.initial_latent(3)


def overflow(adapter: PipelineAdapter, scale: float) -> None:
    """Make the VAE's last activations larger than fp16 holds, and its image the same."""
    with torch.no_grad():
        adapter.pipeline.vae.decoder.conv_norm_out.weight.mul_(scale)
        adapter.pipeline.vae.decoder.conv_out.weight.div_(scale)


@pytest.mark.parametrize("family", ["sd", "sd3", "flux"])
def test_vae_that_overflows_runs_in_full_precision(family: str, load: Load, caplog: pytest.LogCaptureFixture) -> None:
    """Latents are finite, pixels are not: the image is drawn in fp32, and so are those after it; nobody gets black."""
    adapter, tally = load(family, None, "fp16"), Tally()
    overflow(adapter, 3e4)
    latent = latent_of(adapter)
    with torch.inference_mode():
        assert not torch.isfinite(adapter.decode_latent(latent)).all(), "the VAE must overflow"
        decoder = Decoder(adapter, tally)
        with caplog.at_level(logging.WARNING):
            first = decoder.to_image(latent, "png")
        again = decoder.to_image(latent, "png")
        image = adapter.decode(latent)
    assert image.std() > 1
    assert first == again
    assert decoder.to_preview(latent)
    assert adapter.pipeline.vae.dtype == torch.float32
    assert tally.decode_fallbacks == 1
    assert "runs in fp32 from now on" in caplog.text


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_pixels_that_are_never_finite_are_an_error(precision: str, load: Load) -> None:
    """No black image with status OK, as a preview neither; the VAE stays as it was."""
    adapter = load("sd", None, precision)
    before = adapter.pipeline.vae
    with torch.no_grad():
        before.decoder.conv_out.weight.fill_(float("nan"))
    decoder = Decoder(adapter, Tally())
    for decode in (lambda: decoder.to_image(latent_of(adapter), "png"), lambda: decoder.to_preview(latent_of(adapter))):
        with pytest.raises(NotFinite, match="not finite"):
            decode()
    assert adapter.pipeline.vae is before


def test_model_without_a_vae_is_checked_too(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedded model draws pixels directly; its infinities are none either."""
    adapter = load("scenes")
    monkeypatch.setattr(adapter, "decode_latent", lambda latent: torch.full((1, 3, 8, 8), float("inf")))
    with pytest.raises(NotFinite):
        adapter.decode(latent_of(adapter))


@pytest.mark.parametrize("family", ["sd", "sdxl", "sd3", "flux", "scenes"])
def test_two_texts_at_once_get_what_each_gets_alone(family: str, load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fast tokenizer keeps truncation and padding as its own state, so no two calls may share it."""
    adapter = load(family)
    busy, met = [0], [0]
    encode = adapter.encode_texts

    def watched(*args: Any) -> Any:
        busy[0] += 1
        met[0] = max(met[0], busy[0])
        try:
            return encode(*args)
        finally:
            busy[0] -= 1

    monkeypatch.setattr(adapter, "encode_texts", watched)
    prompts = ["red", "a red circle left of the blue square " * 3, "two"] * 6
    alone = [adapter.encode(prompt, "", 3.0).prompted for prompt in prompts[:3]]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda prompt: adapter.encode(prompt, "", 3.0).prompted, prompts))
    for index, ours in enumerate(together):
        for name, values in alone[index % 3].items():
            assert torch.equal(ours[name], values), (index, name)
    assert met == [1]
