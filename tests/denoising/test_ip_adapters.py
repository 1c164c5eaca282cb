"""An IP-Adapter of the pool: a request that shows it an image draws what stock diffusers draws with it loaded."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers.loaders import FluxIPAdapterMixin, SD3IPAdapterMixin
from safetensors.torch import load_file, save_file
from transformers import CLIPVisionModelWithProjection, SiglipImageProcessor, SiglipVisionModel

from t2i_runtime.drawing import Drawing, ScaledAdapter
from t2i_sources import IpAdapterFiles
from t2i_testing_kit.tiny_pipelines.adapters import save_adapter
from t2i_testing_kit.tiny_pipelines.controls import save_control
from t2i_testing_kit.tiny_pipelines.families import save_family
from t2i_testing_kit.tiny_pipelines.in_engine import EngineRun, TinyEngine
from t2i_testing_kit.tiny_pipelines.ip_adapters import ENCODER, WEIGHTS, save_ip_adapter
from t2i_testing_kit.tiny_pipelines.limits import MIXED_BOUND
from t2i_testing_kit.tiny_pipelines.stock import StockRun, TinyRequest, load_stock, sample_image, stock_run
from t2i_worker.digests import ip_adapter_digest
from t2i_worker.engine.warm_up import try_components
from t2i_worker.errors import JobInvalid, ModelUnsupported
from t2i_worker.input_images import NO_PICTURES, ComponentPicture, DecodedImages
from t2i_worker.pipelines import AdapterFile
from t2i_worker.pipelines.controls import load_control
from t2i_worker.pipelines.ip_adapters import load_ip_adapter

FACE, ROOM = sample_image(40, 24), sample_image(32, 64).rotate(90)
NAMES = ("sd15", "sdxl", "sd3", "flux-dev", "flux-kontext", "chroma")
STEPS = 2
PLAIN = TinyRequest(seed=1, steps=STEPS)


def files_of(folder: Path) -> IpAdapterFiles:
    return IpAdapterFiles(folder / WEIGHTS, folder / ENCODER)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ip-adapters")
    for name in NAMES:
        save_family(name, folder / name)
        save_ip_adapter(folder / name, folder / f"{name}-face")
        save_ip_adapter(folder / name, folder / f"{name}-plus", seed=6, plus=True)
    return folder


def engine_of(made: Path, name: str, **options: Any) -> TinyEngine:
    engine = TinyEngine(name, made / name, **options)
    for kind in ("face", "plus"):
        load_ip_adapter(engine.pipeline, kind, files_of(made / f"{name}-{kind}"))
    return engine


def shown(seed: int, scale: float = 0.7, kind: str = "face", **options: Any) -> TinyRequest:
    images, looked_at = options.pop("images", NO_PICTURES), options.pop("looked_at", FACE)
    with_image = replace(images, ip_adapter=ComponentPicture(kind, looked_at, scale))
    return TinyRequest(seed=seed, steps=STEPS, images=with_image, **options)


def stock_with(stock: Any, folder: Path, scale: float) -> Any:
    """As diffusers' documentation says of each family."""
    encoder: Any = folder / ENCODER
    where: dict[str, Any] = {"subfolder": "", "weight_name": WEIGHTS}
    if isinstance(stock, FluxIPAdapterMixin):
        where |= {"image_encoder_pretrained_model_name_or_path": encoder, "image_encoder_dtype": torch.float32}
    if isinstance(stock, SD3IPAdapterMixin):
        parts = {"image_encoder": SiglipVisionModel, "feature_extractor": SiglipImageProcessor}
        stock.register_modules(**{name: part.from_pretrained(encoder) for name, part in parts.items()})
    stock.load_ip_adapter(folder, **where)
    stock.set_ip_adapter_scale(scale)
    return stock


def stock_shown(made: Path, name: str, request: TinyRequest, kind: str = "face") -> StockRun:
    picture = request.images.ip_adapter
    assert picture is not None
    stock = stock_with(load_stock(made / name), made / f"{name}-{kind}", picture.scale)
    return stock_run(stock, name, replace(request, extra={**request.extra, "ip_adapter_image": picture.picture}))


def apart(run: EngineRun, stock: StockRun) -> float:
    assert run.error is None
    return float((run.final - stock.final).abs().max() / stock.final.std())


@pytest.mark.parametrize(("name", "kind"), [("sd15", "plus"), *((name, "face") for name in NAMES)])
def test_drawn_as_diffusers_draws_with_it(name: str, kind: str, made: Path) -> None:
    """To the last bit alone, guided and not; and a plain request as by a model that never had an adapter."""
    engine = engine_of(made, name)
    for request in (shown(1, kind=kind), shown(2, 1.5, kind, guidance=1.0), shown(3, 0.0, kind)):
        (alone,) = engine.draw([request])
        assert np.array_equal(alone.pixels, stock_shown(made, name, request, kind).pixels)
    (plain,) = engine.draw([PLAIN])
    assert np.array_equal(plain.pixels, stock_run(load_stock(made / name), name, PLAIN).pixels)
    (again,) = engine.draw([shown(1, kind=kind)])
    assert not np.array_equal(again.pixels, plain.pixels)
    assert np.array_equal(again.pixels, stock_shown(made, name, shown(1, kind=kind), kind).pixels)


@pytest.mark.parametrize(
    ("name", "guidance"),
    [
        ("sdxl", None),
        ("sd15", 1.0),
        ("sd3", None),
        ("sd3", 1.0),
        ("flux-dev", None),
        ("flux-kontext", None),
        ("chroma", None),
        ("chroma", 1.0),
    ],
)
def test_requests_of_one_batch_do_not_touch_each_other(name: str, guidance: float | None, made: Path) -> None:
    """Those with one adapter at one scale meet. Others, and plain ones, have forwards of their own."""
    engine = engine_of(made, name)
    plain = replace(PLAIN, guidance=guidance)
    others = [
        shown(1, guidance=guidance),
        shown(2, guidance=guidance, prompt="two blue squares", looked_at=ROOM),
        shown(3, 1.1, guidance=guidance),
        shown(4, kind="plus", guidance=guidance),
    ]
    runs = engine.draw([plain, *others, replace(plain, seed=5)])
    stocks = [
        stock_run(load_stock(made / name), name, plain),
        *(stock_shown(made, name, one, one.images.ip_adapter.component) for one in others if one.images.ip_adapter),
        stock_run(load_stock(made / name), name, replace(plain, seed=5)),
    ]
    for run, stock in zip(runs, stocks, strict=True):
        assert apart(run, stock) <= MIXED_BOUND
    assert engine.batch_sizes[2] == engine.batch_sizes[1], "two pairs and two alone, at every step"


def test_beside_other_images_and_parts(made: Path) -> None:
    """With an image to start from, a LoRA adapter and a ControlNet, as diffusers combines them."""
    style = AdapterFile("style", save_adapter(made / "sdxl", made / "style", seed=1))
    engine = engine_of(made, "sdxl", adapters=[style])
    load_control(engine.pipeline, "edges", save_control(made / "sdxl", made / "edges"))

    start = DecodedImages(init=sample_image(48, 32), strength=0.6)
    request = shown(1, images=start)
    parts = load_stock(made / "sdxl").components
    stock = stock_with(diffusers.StableDiffusionXLImg2ImgPipeline(**parts), made / "sdxl-face", 0.7)
    extra = {"ip_adapter_image": FACE, "image": start.init, "strength": 0.6}
    (run,) = engine.draw([request])
    assert np.array_equal(run.pixels, stock_run(stock, "sdxl", replace(request, extra=extra)).pixels)

    request = shown(1, drawing=Drawing(adapters=(ScaledAdapter("style", 0.5),)))
    stock = load_stock(made / "sdxl")
    stock.load_lora_weights(style.path.parent, weight_name=style.path.name, adapter_name="style")
    stock.set_adapters(["style"], [0.5])
    stock = stock_with(stock, made / "sdxl-face", 0.7)
    (run,) = engine.draw([request])
    assert np.array_equal(
        run.pixels, stock_run(stock, "sdxl", replace(request, extra={"ip_adapter_image": FACE})).pixels
    )

    request = shown(1, images=DecodedImages(control=ComponentPicture("edges", ROOM, 0.8)))
    control = diffusers.ControlNetModel.from_pretrained(made / "edges")
    stock = diffusers.StableDiffusionXLControlNetPipeline(**load_stock(made / "sdxl").components, controlnet=control)
    stock = stock_with(stock, made / "sdxl-face", 0.7)
    extra = {"ip_adapter_image": FACE, "image": ROOM, "controlnet_conditioning_scale": 0.8}
    (run,) = engine.draw([request])
    assert np.array_equal(run.pixels, stock_run(stock, "sdxl", replace(request, extra=extra)).pixels)


@pytest.mark.parametrize("name", ["flux-dev", "flux-kontext"])
def test_negative_prompt_of_flux_looks_at_a_black_image(name: str, made: Path) -> None:
    """Its guidance makes a second call of each step, with another image; both meet those of others."""
    extra = {"true_cfg_scale": 2.0}
    drawing = Drawing(arguments=extra)
    options: dict[str, Any] = {"negative": "blurry", "drawing": drawing, "extra": extra}
    requests = [shown(1, **options), shown(2, looked_at=ROOM, **options), shown(3)]
    engine = engine_of(made, name)
    stocks = [stock_shown(made, name, request) for request in requests]
    for request, stock in zip(requests, stocks, strict=True):
        (run,) = engine.draw([request])
        assert np.array_equal(run.pixels, stock.pixels)
    for run, stock in zip(engine.draw(requests), stocks, strict=True):
        assert apart(run, stock) <= MIXED_BOUND


def test_chroma_beside_an_image_to_start_from(made: Path) -> None:
    engine = engine_of(made, "chroma")
    start = DecodedImages(init=sample_image(48, 32), strength=0.6)
    stock = diffusers.ChromaImg2ImgPipeline(**load_stock(made / "chroma").components)
    stock_with(stock, made / "chroma-face", 0.7)
    request = shown(1, images=start)
    extra = {"ip_adapter_image": FACE, "image": start.init, "strength": 0.6}
    (run,) = engine.draw([request])
    assert np.array_equal(run.pixels, stock_run(stock, "chroma", replace(request, extra=extra)).pixels)


@pytest.mark.parametrize(
    ("name", "image_kind", "control_kind", "control_name"),
    [
        ("sd3", "StableDiffusion3Img2ImgPipeline", "StableDiffusion3ControlNetPipeline", "SD3ControlNetModel"),
        ("flux-dev", "FluxImg2ImgPipeline", "FluxControlNetPipeline", "FluxControlNetModel"),
    ],
)
def test_transformers_beside_other_images(
    name: str, image_kind: str, control_kind: str, control_name: str, made: Path
) -> None:
    """With an image to start from, and with a ControlNet."""
    engine = engine_of(made, name)
    folder = save_control(made / name, made / f"{name}-edges")
    load_control(engine.pipeline, "edges", folder)
    start = DecodedImages(init=sample_image(48, 32), strength=0.6)
    extra = {"ip_adapter_image": FACE, "image": start.init, "strength": 0.6}
    stock = getattr(diffusers, image_kind)(**load_stock(made / name).components)
    request = shown(1, images=start)
    (run,) = engine.draw([request])
    wanted = stock_run(stock_with(stock, made / f"{name}-face", 0.7), name, replace(request, extra=extra))
    assert np.array_equal(run.pixels, wanted.pixels)

    extra = {"ip_adapter_image": FACE, "control_image": ROOM, "controlnet_conditioning_scale": 0.8}
    control = getattr(diffusers, control_name).from_pretrained(folder)
    stock = getattr(diffusers, control_kind)(**load_stock(made / name).components, controlnet=control)
    stock_with(stock, made / f"{name}-face", 0.7)
    request = shown(1, images=DecodedImages(control=ComponentPicture("edges", ROOM, 0.8)))
    (run,) = engine.draw([request])
    torch.manual_seed(1)  # SD3's draws its control latents from there
    wanted = stock_run(stock, name, replace(request, extra=extra))
    assert np.array_equal(run.pixels, wanted.pixels)


@pytest.mark.parametrize("name", ["sdxl", "sd3", "flux-dev", "chroma"])
def test_switch_changes_no_table_that_other_threads_walk_through(name: str, made: Path) -> None:
    """Stock code asks a model for its dtype in every thread: a table that changes under it ends the request."""
    denoiser = engine_of(made, name).pipeline.denoiser
    projections = ("encoder_hid_proj", "image_proj")
    tables = []
    for wanted in (None, ScaledAdapter("face", 0.7), ScaledAdapter("plus", 0.7), None):
        denoiser.ip_adapters.use(wanted)
        own = [part for name, part in denoiser.module.named_modules() if not name.startswith(projections)]
        tables.append([([*part._modules], [*part.__dict__]) for part in own])
    assert all(table == tables[0] for table in tables)


@pytest.mark.parametrize("name", NAMES)
def test_previews_encode_the_image_once(name: str, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, encoded = engine_of(made, name), []
    (run,) = engine.draw([shown(1)])
    view = engine.pipeline.shown["face"]
    monkeypatch.setattr(type(view), "encode_image", lambda *_, **__: encoded.append(1))
    assert run.stock.preview(run.final)
    assert not encoded


def test_adapter_that_cannot_serve_is_named_at_the_start(made: Path, tmp_path: Path) -> None:
    """And a model that takes none says which do."""
    engine = TinyEngine("sd15", made / "sd15")
    own = files_of(made / "sd15-face")
    weights = load_file(own.weights)
    save_file({**weights, "ip_adapter.0.to_q_lora.down.weight": torch.zeros(2)}, tmp_path / "faceid.safetensors")
    save_file({"image_proj.proj.0.weight": torch.zeros(2, 2)}, tmp_path / "portrait.safetensors")
    save_file({"some": torch.zeros(2)}, tmp_path / "other.safetensors")
    (tmp_path / "pickle.safetensors").write_bytes(b"\x80\x04K\x01.")
    for file, says in {
        "faceid": "it is a FaceID adapter.*plus-face",
        "portrait": "it is a FaceID adapter",
        "other": "it cannot be loaded",
        "pickle": "is no safetensors file",
    }.items():
        with pytest.raises(ModelUnsupported, match=rf"model\.components\['bad'\].*{says}"):
            load_ip_adapter(engine.pipeline, "bad", replace(own, weights=tmp_path / f"{file}.safetensors"))
    (plain,) = engine.draw([PLAIN])
    assert np.array_equal(plain.pixels, stock_run(load_stock(made / "sd15"), "sd15", PLAIN).pixels)
    save_family("z-image", tmp_path / "z-image")
    with pytest.raises(
        ModelUnsupported, match=r"ZImagePipeline takes no IP-Adapter; .*XL and 3, FLUX\.1 and Chroma do"
    ):
        load_ip_adapter(TinyEngine("z-image", tmp_path / "z-image").pipeline, "face", own)


def test_adapter_of_another_model_is_named_at_the_start(made: Path, tmp_path: Path) -> None:
    """Weights of other shapes do not load. An encoder that does not suit them fails at the first image."""
    engine, own = TinyEngine("sd15", made / "sd15"), files_of(made / "sd15-face")
    with pytest.raises(ModelUnsupported, match=r"model\.components\['face'\].*cannot be loaded"):
        load_ip_adapter(engine.pipeline, "face", files_of(made / "sdxl-face"))
    encoder = CLIPVisionModelWithProjection.from_pretrained(own.encoder)
    encoder.visual_projection = torch.nn.Linear(encoder.config.hidden_size, 8, bias=False)
    encoder.config.projection_dim = 8
    encoder.save_pretrained(tmp_path / "narrow")
    load_ip_adapter(engine.pipeline, "face", replace(own, encoder=tmp_path / "narrow"))
    with pytest.raises(ModelUnsupported, match=r"model\.components\['face'\].*draws no image with it"):
        try_components(engine.pipeline, 5.0, lambda _: None)


def test_each_is_tried_and_told_at_the_start(made: Path) -> None:
    engine, told = engine_of(made, "sd15"), list[str]()
    try_components(engine.pipeline, 5.0, told.append)
    assert [line.partition(":")[0] for line in told] == ["component face", "component plus"]


def test_image_where_the_pipeline_takes_none_is_refused(made: Path) -> None:
    """Should diffusers' class for the other images take none, the field is named."""
    engine = engine_of(made, "sd15")
    job = engine.job(shown(1))
    takes_none = engine.pipeline.shown["face"]
    takes_none.__dict__["unet"] = engine.pipeline.stock.unet
    engine.pipeline.stock_for = lambda _: diffusers.StableDiffusionUpscalePipeline  # type: ignore[method-assign, assignment]
    with pytest.raises(JobInvalid, match="ip_adapter_images"):
        engine.pipeline.arguments(job)


def test_digest_covers_weights_and_encoder(made: Path, tmp_path: Path) -> None:
    first, again = made / "sd15-face", save_ip_adapter(made / "sd15", tmp_path / "again")
    same = ip_adapter_digest(files_of(first))
    assert ip_adapter_digest(files_of(again)) == same
    other = save_ip_adapter(made / "sd15", tmp_path / "other", seed=9)
    assert ip_adapter_digest(replace(files_of(first), encoder=other / ENCODER)) != same
    assert ip_adapter_digest(replace(files_of(first), weights=other / WEIGHTS)) != same
