"""Decoding: pixels that are not finite are no image, texts are tokenized one at a time."""

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from t2i_policy.level import Level
from t2i_worker.engine.pipeline_run import SharedParts
from t2i_worker.engine.stock_call import StockCall
from t2i_worker.errors import NotFinite
from t2i_worker.jobs import Job
from t2i_worker.pipelines import LoadedPipeline

Load = Callable[..., LoadedPipeline]


def job(prompt: str = "red", seed: int = 3) -> Job:
    return Job("id", prompt, "", seed, 3.0, Level(0, 2), "png")


def draw(pipeline: LoadedPipeline) -> np.ndarray:
    return StockCall(pipeline, pipeline.arguments(job()), pipeline.denoiser.forward).draw(3)[0]


def overflow(pipeline: LoadedPipeline, scale: float) -> None:
    """Make the VAE's last activations larger than fp16 holds, and its image the same."""
    with torch.no_grad():
        pipeline.stock.vae.decoder.conv_norm_out.weight.mul_(scale)
        pipeline.stock.vae.decoder.conv_out.weight.div_(scale)


@pytest.mark.parametrize("family", ["sd", "sd3", "flux"])
def test_vae_that_overflows_runs_in_full_precision(family: str, load: Load, caplog: pytest.LogCaptureFixture) -> None:
    """Latents are finite, pixels are not: the image is drawn in fp32, and so are those after it; nobody gets black."""
    pipeline = load(family, None, "fp16")
    overflow(pipeline, 3e4)
    with caplog.at_level(logging.WARNING):
        first = draw(pipeline)
    assert first.std() > 1
    assert np.array_equal(first, draw(pipeline))
    assert pipeline.stock.vae.dtype == torch.float32
    assert pipeline.vae.tally.decode_fallbacks == 1
    assert "runs in fp32 from now on" in caplog.text


def test_vae_that_is_known_to_overflow_runs_in_full_precision_from_the_start(load: Load) -> None:
    """The stock pipeline of SDXL changes its type for each image, and two threads would disturb each other."""
    assert load("sdxl", None, "fp16").stock.vae.dtype == torch.float32
    assert load("sdxl", None, "bf16").stock.vae.dtype == torch.bfloat16


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_pixels_that_are_never_finite_are_an_error(precision: str, load: Load) -> None:
    """No black image with status OK; the VAE stays as it was."""
    pipeline = load("sd", None, precision)
    before = pipeline.stock.vae.dtype
    with torch.no_grad():
        pipeline.stock.vae.decoder.conv_out.weight.fill_(float("nan"))
    with pytest.raises(NotFinite, match="not finite"):
        draw(pipeline)
    assert pipeline.stock.vae.dtype == before


def test_model_without_a_vae_is_checked_too(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedded model draws pixels directly; its infinities are none either."""
    pipeline = load("scenes")
    with torch.no_grad():
        pipeline.stock.unet.conv_out.weight.fill_(float("nan"))
    with pytest.raises(NotFinite):
        draw(pipeline)


def test_decode_that_does_not_fit_is_tried_again(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is freed first; the request does not notice."""
    pipeline = load("sd")
    errors, decode = [MemoryError()], pipeline.vae._real_decode

    def short_of_memory(*args: Any, **kwargs: Any) -> Any:
        if errors:
            raise errors.pop()
        return decode(*args, **kwargs)

    monkeypatch.setattr(pipeline.vae, "_real_decode", short_of_memory)
    assert draw(pipeline).std() > 1
    assert pipeline.vae.tally.out_of_memory == 1


def test_decode_that_never_fits_whole_is_made_in_tiles(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """As stock tiling draws it; the next image is whole again."""
    pipeline = load("sd")
    vae, decode = pipeline.stock.vae, pipeline.vae._real_decode
    whole = draw(pipeline)
    vae.tile_latent_min_size, vae.tile_sample_min_size = 8, 16
    vae.enable_tiling()
    tiled = draw(pipeline)
    vae.disable_tiling()
    assert not np.array_equal(tiled, whole)

    def short_of_memory(*args: Any, **kwargs: Any) -> Any:
        if not vae.use_tiling:
            raise torch.OutOfMemoryError("out of memory")
        return decode(*args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(pipeline.vae, "_real_decode", short_of_memory)
        assert np.array_equal(draw(pipeline), tiled)
    assert pipeline.vae.tally.out_of_memory == 2
    assert np.array_equal(draw(pipeline), whole)


@pytest.mark.parametrize("family", ["sd", "sdxl", "sd3", "flux", "scenes"])
def test_texts_at_once_are_encoded_one_after_the_other(
    family: str, load: Load, listen: Callable[..., Any], in_loop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fast tokenizer keeps truncation and padding as its own state, so no two calls may share it."""
    pipeline = load(family)
    busy, met = [0], [0]

    @contextmanager
    def counted() -> Iterator[None]:
        busy[0] += 1
        met[0] = max(met[0], busy[0])
        yield
        busy[0] -= 1

    encode = type(pipeline.stock).encode_prompt

    def watched(*args: Any, **kwargs: Any) -> Any:
        with counted():
            return encode(*args, **kwargs)

    monkeypatch.setattr(type(pipeline.stock), "encode_prompt", watched)
    prompts = ["red", "a red circle left of the blue square " * 3, "two"]
    listening = listen(pipeline.denoiser, 4)
    parts = SharedParts(pipeline, listening.loop)
    listening.loop.start()

    def run(prompt: str) -> Tensor:
        one = in_loop(parts, job(prompt))
        one.run(listening.loop)
        assert one.error is None
        return one.latent

    alone = [run(prompt) for prompt in prompts]
    with ThreadPoolExecutor(6) as threads:
        together = list(threads.map(run, prompts * 4))
    for index, ours in enumerate(together):
        assert float((ours - alone[index % 3]).abs().max()) < 1e-4 * float(ours.std()), index
    assert met == [1]
