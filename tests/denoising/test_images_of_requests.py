"""A request may bring images: what is drawn is what diffusers' own sibling class draws, alone and among others."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image as PillowImage

from t2i_policy.level import Level
from t2i_testing_kit.tiny_pipelines import unet_pipelines
from t2i_testing_kit.tiny_pipelines.families import save_family
from t2i_testing_kit.tiny_pipelines.in_engine import TinyEngine
from t2i_testing_kit.tiny_pipelines.limits import MIXED_BOUND
from t2i_testing_kit.tiny_pipelines.stock import StockRun, TinyRequest, load_stock, sample_image, stock_run
from t2i_worker.engine.stock_call import StockCall
from t2i_worker.engine.try_images import try_images
from t2i_worker.engine.warm_up import warm_up
from t2i_worker.errors import JobInvalid
from t2i_worker.input_images import NO_PICTURES, DecodedImages
from t2i_worker.jobs import Job
from t2i_worker.pipelines import LoadedPipeline, load_pipeline

PHOTO = sample_image(48, 32)
HALF = PillowImage.fromarray(np.repeat([[0] * 24 + [255] * 24], 32, axis=0).astype(np.uint8), "L")
FROM_IMAGE, FROM_MASK = DecodedImages(PHOTO, strength=0.6), DecodedImages(PHOTO, HALF, strength=0.8)
#: The calls of these differ from those of text-to-image in more than rows. Among themselves they meet.
APART = {
    "ZImageImg2ImgPipeline": "asks its denoiser for a tuple, and text-to-image for a dictionary",
    "ZImageInpaintPipeline": "as above",
    "Flux2KleinInpaintPipeline": "shows its denoiser the image beside the latents",
}


@dataclass(frozen=True)
class Sibling:
    """`kind` is the class of diffusers that its documentation names for the task. `steps` of `whole` run."""

    family: str
    kind: str
    images: DecodedImages
    steps: int
    whole: int = 5


SIBLINGS = [
    Sibling("sd15", "StableDiffusionImg2ImgPipeline", FROM_IMAGE, 3),
    Sibling("sd15", "StableDiffusionInpaintPipeline", FROM_MASK, 4),
    Sibling("sdxl", "StableDiffusionXLImg2ImgPipeline", FROM_IMAGE, 3),
    Sibling("sdxl", "StableDiffusionXLInpaintPipeline", FROM_MASK, 4),
    Sibling("sd3", "StableDiffusion3Img2ImgPipeline", FROM_IMAGE, 3),
    Sibling("flux-dev", "FluxImg2ImgPipeline", FROM_IMAGE, 3),
    Sibling("flux-dev", "FluxInpaintPipeline", FROM_MASK, 4),
    Sibling("qwen-image", "QwenImageImg2ImgPipeline", FROM_IMAGE, 3),
    Sibling("qwen-image", "QwenImageInpaintPipeline", FROM_MASK, 4),
    Sibling("z-image", "ZImageImg2ImgPipeline", FROM_IMAGE, 3),
    Sibling("z-image", "ZImageInpaintPipeline", FROM_MASK, 4),
    Sibling("chroma", "ChromaImg2ImgPipeline", FROM_IMAGE, 3),
    Sibling("lcm", "LatentConsistencyModelImg2ImgPipeline", FROM_IMAGE, 5),
    Sibling("sana-sprint", "SanaSprintImg2ImgPipeline", DecodedImages(sample_image(64, 32), strength=0.5), 1, whole=2),
    Sibling("flux-kontext", "FluxKontextInpaintPipeline", FROM_MASK, 4),
    Sibling("flux2-klein", "Flux2KleinInpaintPipeline", FROM_MASK, 4),
]


@pytest.fixture(scope="module")
def family_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    return cache(lambda name: save_family(name, tmp_path_factory.mktemp("families") / name))


@pytest.fixture(scope="module")
def engine_of(family_folder: Callable[[str], Path]) -> Callable[[str], TinyEngine]:
    return cache(lambda name: TinyEngine(name, family_folder(name)))


def stock_sibling(folder: Path, one: Sibling, request: TinyRequest, dtype: torch.dtype = torch.float32) -> StockRun:
    """What a user of diffusers gets, who makes the sibling by `from_pipe`."""
    pipeline = getattr(diffusers, one.kind).from_pipe(load_stock(folder, dtype), torch_dtype=dtype)
    pipeline.set_progress_bar_config(disable=True)
    images = request.images
    extra = {"image": images.init, "strength": images.strength, "mask_image": images.mask}
    given = {name: value for name, value in extra.items() if value is not None}
    plain = TinyRequest(request.prompt, request.negative, request.seed, one.whole, extra=given)
    return stock_run(pipeline, one.family, plain)


@pytest.mark.parametrize("one", SIBLINGS, ids=lambda one: one.kind)
def test_drawn_as_the_sibling_of_diffusers_draws(
    one: Sibling, family_folder: Callable[[str], Path], engine_of: Callable[[str], TinyEngine]
) -> None:
    """To the last bit alone; in one batch with text-to-image within a ten-thousandth of the latents' deviation."""
    engine, request = engine_of(one.family), TinyRequest(seed=3, steps=one.whole, images=one.images)
    stock = stock_sibling(family_folder(one.family), one, request)
    (alone,) = engine.draw([request])
    assert alone.error is None
    assert np.abs(alone.pixels.astype(int) - stock.pixels).max() == 0
    assert (alone.running.num_steps, alone.running.step) == (one.steps, one.steps)
    plain = TinyRequest("a blue circle left of the red square", seed=4, steps=one.whole)
    mixed, text = engine.draw([request, plain])
    assert mixed.error is None
    assert text.error is None
    assert (2 in engine.batch_sizes) is (one.kind not in APART)
    if one.kind not in APART:
        assert engine.batch_sizes[2] >= engine.batch_sizes.get(1, 0), "they meet at each step of the shorter one"
    assert float((mixed.final - stock.final).abs().max() / stock.final.std()) <= MIXED_BOUND


@pytest.mark.parametrize("one", [one for one in SIBLINGS if one.family == "sdxl"], ids=lambda one: one.kind)
def test_request_leaves_the_shared_vae_as_it_is(one: Sibling, family_folder: Callable[[str], Path]) -> None:
    """SDXL's pipelines convert it to encode an image in fp32. Another request may be decoding at that moment."""
    folder, request = family_folder("sdxl"), TinyRequest(seed=3, steps=one.whole, images=one.images)
    stock = stock_sibling(folder, one, request, torch.bfloat16)
    engine = TinyEngine("sdxl", folder, "bf16")
    vae = engine.pipeline.stock.vae
    used: set[torch.dtype] = set()
    for part in (vae.encoder, vae.decoder):
        part.register_forward_pre_hook(lambda part, _: used.add(next(part.parameters()).dtype))
    left: list[torch.dtype] = []
    convert = vae.to
    vae.to = lambda *args, **kwargs: (convert(*args, **kwargs), left.append(vae.dtype))[0]
    (run,) = engine.draw([request])
    assert run.error is None
    assert np.abs(run.pixels.astype(int) - stock.pixels).max() == 0
    assert set(left) == {torch.bfloat16}, "the pipeline asked for fp32, and it was not converted then"
    assert used == {torch.float32, torch.bfloat16}, "images are encoded in fp32 and decoded in bf16, as in stock"


SQUARE, OTHER = sample_image(64, 64), sample_image(64, 64).rotate(90)
EDITS = {
    "flux-kontext": {"image": PHOTO, "max_area": 48 * 32, "_auto_resize": False},
    "flux2-klein": {"image": [SQUARE, OTHER]},
    "flux2-dev": {"image": [SQUARE, OTHER]},
}


@pytest.mark.parametrize("family", EDITS)
def test_editing_model_looks_at_what_it_is_given(family: str, family_folder: Callable[[str], Path]) -> None:
    """As stock does with the same images; and another image than without them."""
    images = EDITS[family]["image"]
    decoded = DecodedImages(references=tuple(images) if isinstance(images, list) else (images,))
    stock = stock_run(load_stock(family_folder(family)), family, TinyRequest(seed=3, extra=EDITS[family]))
    engine = TinyEngine(family, family_folder(family))
    extra = {"_auto_resize": False} if family == "flux-kontext" else {}
    engine.family = replace(engine.family, takes_image=False, extra=extra)
    run, plain = engine.draw([TinyRequest(seed=3, images=decoded), TinyRequest(seed=3)])
    assert (run.error, plain.error) == (None, None)
    assert np.abs(run.pixels.astype(int) - stock.pixels).max() <= 1
    assert np.abs(run.pixels.astype(int) - plain.pixels).max() > 1


def test_inpainting_folder_is_served_and_always_needs_both(tmp_path: Path) -> None:
    """Its denoiser has channels for the mask and the image, so that it draws nothing from text alone."""
    torch.manual_seed(7)
    parts = {**unet_pipelines.stable_diffusion(diffusers.EulerDiscreteScheduler()).components}
    parts["unet"] = unet_pipelines.tiny_unet(in_channels=9, cross_attention_dim=32, attention_head_dim=8)
    diffusers.StableDiffusionInpaintPipeline(**parts, requires_safety_checker=False).save_pretrained(tmp_path / "m")
    pipeline = load_pipeline(tmp_path / "m", "fp32", 48, 32, "cpu")
    assert warm_up(pipeline, 3.0, 1, lambda _: None).batch_cap == 1
    assert pipeline.tasks.takes == ("init_image", "mask", "strength")
    job = Job("id", "a red circle", "", 1, 3.0, Level(0, 4), "png", images=DecodedImages(PHOTO, HALF))
    ours = StockCall(pipeline, pipeline.arguments(job), pipeline.denoiser.forward).draw(1)
    with torch.inference_mode():
        stock = pipeline.stock(
            prompt="a red circle", image=PHOTO, mask_image=HALF, height=32, width=48, num_inference_steps=4,
            guidance_scale=3.0, generator=torch.Generator().manual_seed(1), output_type="np",
        )  # fmt: skip
    assert np.array_equal(ours[0], (stock.images[0] * 255).round().astype(np.uint8))
    assert refused(pipeline, NO_PICTURES) == ["drawing.images.init_image", "drawing.images.mask"]
    assert refused(pipeline, DecodedImages(PHOTO)) == ["drawing.images.mask"]


def refused(pipeline: LoadedPipeline, images: DecodedImages, steps: int = 4) -> list[str]:
    job = Job("id", "a red circle", "", 1, 3.0, Level(0, steps), "png", images=images)
    with pytest.raises(JobInvalid) as error:
        pipeline.arguments(job)
    return [one.field for one in error.value.violations]


@pytest.mark.parametrize(
    ("family", "images", "fields"),
    [
        ("sana", FROM_IMAGE, ["init_image", "strength"]),
        ("sd15", DecodedImages(references=(PHOTO,)), ["reference_images"]),
        ("lcm", FROM_MASK, ["mask"]),
        ("flux2-klein", DecodedImages(PHOTO, strength=0.5), ["strength"]),
        ("flux2-klein", DecodedImages(PHOTO, references=(PHOTO,) * 4), ["reference_images"]),
    ],
)
def test_what_a_model_cannot_do_is_refused_by_field(
    family: str, images: DecodedImages, fields: list[str], engine_of: Callable[[str], TinyEngine]
) -> None:
    assert refused(engine_of(family).pipeline, images) == [f"drawing.images.{name}" for name in fields]


@pytest.mark.parametrize(("family", "steps"), [("sd15", None), ("flux-dev", 1)])
def test_small_strength_leaves_what_stock_leaves(
    family: str, steps: int | None, engine_of: Callable[[str], TinyEngine]
) -> None:
    """Stable Diffusion rounds a tenth of five steps down, FLUX rounds it up. Without any step it is refused."""
    (run,) = engine_of(family).draw([TinyRequest(steps=5, images=DecodedImages(PHOTO, strength=0.1))])
    if steps is None:
        assert isinstance(run.error, JobInvalid)
        assert [one.field for one in run.error.violations] == ["drawing.images.strength"]
    else:
        assert (run.error, run.running.num_steps) == (None, steps)


def test_siblings_share_every_weight(engine_of: Callable[[str], TinyEngine]) -> None:
    """Another class is no other model: nothing is copied, moved or converted, and each is made once."""
    pipeline = engine_of("sdxl").pipeline
    sibling = pipeline.stock_for(FROM_IMAGE)
    assert sibling is pipeline.stock_for(FROM_IMAGE)
    shared = {name: one for name, one in sibling.components.items() if one is not None}
    assert all(pipeline.stock.components[name] is one for name, one in shared.items())


def test_sibling_that_draws_nothing_is_not_offered(engine_of: Callable[[str], TinyEngine]) -> None:
    """Chroma's class for masks does not work with Chroma in this version of diffusers. A request never finds out."""
    pipeline = engine_of("chroma").pipeline
    told: list[str] = []
    try_images(pipeline, 3.0, told.append)
    assert pipeline.tasks.takes == ("init_image", "strength")
    assert told == ["images: it takes init_image + strength"]
