"""Loading model folders as they lie on hubs and disks: what can be served, and what is refused with a reason."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline

from played_hub import PlayedHub, played_hub
from t2i_api.model import ModelPart
from t2i_policy.level import Level
from t2i_scenes import model_path
from t2i_testing_kit.tiny_pipelines.families import save_family
from t2i_worker.engine.stock_call import StockCall
from t2i_worker.engine.warm_up import warm_up
from t2i_worker.errors import ModelUnsupported
from t2i_worker.jobs import Job
from t2i_worker.pipelines import load_pipeline, loading
from t2i_worker.pipelines.loading import class_of
from t2i_worker.starting import find_model


def load(folder: Path, precision: str = "fp32") -> np.ndarray:
    pipeline = load_pipeline(folder, precision, 48, 32, "cpu")
    job = Job("id", "a red circle", "", 0, 3.0, Level(0, 2), "png")
    return StockCall(pipeline, pipeline.arguments(job), pipeline.denoiser.forward).draw(0)


@pytest.fixture
def folder(model_folder: Callable[..., Path], tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(model_folder("sd"), tmp_path / "model"))


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_weights_at_one_precision_only_are_loaded_and_cast(folder: Path, precision: str) -> None:
    """Many repositories hold fp16 weights alone; a pool of another precision draws with them all the same."""
    for path in [*folder.rglob("*.safetensors")]:
        path.rename(path.with_name(path.name.replace(".safetensors", ".fp16.safetensors")))
    assert load(folder, precision).std() > 1


def test_part_that_was_saved_as_null_is_left_out(tmp_path: Path) -> None:
    """SD3 without its third text encoder."""
    folder = save_family("sd3-without-t5", tmp_path)
    assert json.loads((folder / "model_index.json").read_text())["text_encoder_3"] == [None, None]
    assert load(folder).std() > 1


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["sd15", "sd3-without-t5", "flux-dev", "qwen-image", "sana", "lumina2", "scenes"])
def test_weights_that_go_straight_to_the_device_are_the_same(
    name: str, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, with the host as the device: equal values and types, and no hooks around any part."""
    folder = model_path() if name == "scenes" else save_family(name, tmp_path)
    plain = load_pipeline(folder, precision, 48, 32, "cpu").stock.components
    taken = taken_straight(monkeypatch)
    straight = load_pipeline(folder, precision, 48, 32, "cpu").stock.components
    assert taken == ["cpu"]
    modules = [part for part, value in plain.items() if isinstance(value, torch.nn.Module)]
    assert modules
    for part in modules:
        ours, expected = straight[part].state_dict(), plain[part].state_dict()
        assert ours.keys() == expected.keys()
        for key, value in expected.items():
            assert ours[key].dtype == value.dtype, (part, key)
            assert torch.equal(ours[key], value), (part, key)
        assert not [inner for inner in straight[part].modules() if hasattr(inner, "_hf_hook")]


def test_weights_go_through_the_host_where_a_library_refuses(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    taken = taken_straight(monkeypatch, refuses=True)
    assert load(folder).std() > 1
    assert taken == ["cpu", None]
    assert "through the host's memory: NotImplementedError" in caplog.text


def taken_straight(monkeypatch: pytest.MonkeyPatch, refuses: bool = False) -> list[str | None]:
    """The host counts as a device that weights go straight to; returns what diffusers is asked for."""
    asked: list[str | None] = []
    real = DiffusionPipeline.from_pretrained.__func__

    def noted(kind: type, *args: object, **options: object) -> object:
        asked.append(options.get("device_map"))  # type: ignore[arg-type]
        if refuses and "device_map" in options:
            raise NotImplementedError("not for this class")
        return real(kind, *args, **options)

    monkeypatch.setattr(DiffusionPipeline, "from_pretrained", classmethod(noted))
    monkeypatch.setattr(loading, "STRAIGHT", {"cpu"})
    return asked


@pytest.mark.parametrize("how", ["cut off", "missing", "wrong index", "index is a list", "unknown part"])
def test_broken_folder_is_refused_in_a_sentence(folder: Path, how: str) -> None:
    """Whatever kind of exception a library raises."""
    weights, index = folder / "unet" / "diffusion_pytorch_model.safetensors", folder / "model_index.json"
    match how:
        case "cut off":
            weights.write_bytes(weights.read_bytes()[:500])
        case "missing":
            weights.unlink()
        case "wrong index":
            index.write_text("{")
        case "index is a list":
            index.write_text("[]")
        case "unknown part":
            index.write_text(index.read_text().replace("UNet2DConditionModel", "UNetOfTomorrow"))
    with pytest.raises(ModelUnsupported, match=r"model|index"):
        load(folder)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("StableCascadeCombinedPipeline", "no component transformer or unet|further denoisers"),
        ("WanPipeline", "further denoisers|videos"),
        ("CogVideoXPipeline", "videos"),
        ("LattePipeline", "videos"),
        ("StableAudioPipeline", "sound"),
        ("StableAudio3Pipeline", "nothing of a size"),
        ("DDPMPipeline", "no prompt"),
        ("PipelineOfTomorrow", "has no pipeline class PipelineOfTomorrow"),
        ("UNet2DConditionModel", "has no pipeline class"),
    ],
)
def test_class_that_cannot_be_served_is_refused_with_the_reason(name: str, reason: str) -> None:
    """By its index alone."""
    with pytest.raises(ModelUnsupported, match=reason):
        class_of({"_class_name": name, "transformer_2": ["diffusers", "X"], "decoder": ["diffusers", "X"]})


@pytest.mark.parametrize("name", ["StableDiffusionPipeline", "FluxPipeline", "QwenImagePipeline", "SanaPipeline"])
def test_class_with_one_denoiser_is_served(name: str) -> None:
    """Nothing is written down for most of them."""
    assert class_of({"_class_name": name}).__name__ == name


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[PlayedHub]:
    index = {"_class_name": "CogVideoXPipeline", "transformer": ["diffusers", "CogVideoXTransformer3DModel"]}
    files = {"model_index.json": json.dumps(index).encode(), "transformer/diffusion_pytorch_model.safetensors": b"x"}
    with played_hub("acme/video", files) as started:
        monkeypatch.setenv("HF_ENDPOINT", started.endpoint)
        yield started


def test_class_of_a_hub_is_refused_before_its_weights_are_downloaded(hub: PlayedHub, tmp_path: Path) -> None:
    """Weights may be a hundred gigabytes; the index is some hundred bytes."""
    with pytest.raises(ModelUnsupported, match="CogVideoXPipeline cannot be served: it makes videos"):
        find_model(ModelPart(source="hf://acme/video"), tmp_path)
    assert hub.fetched == {"model_index.json"}


@pytest.mark.parametrize(
    ("family", "width", "reason"),
    [
        ("sd", 44, "divisible by 8"),
        ("flux", 42, "draws 40x32 instead of 42x32"),
    ],
)
def test_size_that_a_pipeline_does_not_draw_is_refused_at_start(
    family: str, width: int, reason: str, model_folder: Callable[..., Path]
) -> None:
    """Some raise, some quietly draw another size."""
    with pytest.raises(ModelUnsupported, match=reason):
        warm_up(load_pipeline(model_folder(family), "fp32", width, 32, "cpu"), 3.0, 1, lambda _: None)


@pytest.mark.parametrize(("family", "calls"), [("sd", 1.0), ("scenes", 1.0)])
def test_warm_up_measures_what_a_step_takes(family: str, calls: float, model_folder: Callable[..., Path]) -> None:
    """Times for each size up to the cap, the calls of a step, and the bytes of a latent."""
    pipeline = load_pipeline(model_folder(family), "fp32", 48, 48, "cpu")
    times = warm_up(pipeline, 3.0, 2, lambda _: None)
    assert len(times.step_s) == times.batch_cap
    assert min(*times.step_s, times.fixed_s) > 0
    assert times.calls_per_step == calls
    assert times.latent_bytes == 4 * {"sd": 4 * 24 * 24, "scenes": 27 * 16 * 16}[family]


def test_pipeline_that_draws_from_images_only_is_refused_at_start(
    model_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a sentence with the pipeline's own words, not in a traceback."""
    pipeline = load_pipeline(model_folder("sd"), "fp32", 48, 32, "cpu")

    def refuse(*_: object, **__: object) -> None:
        raise ValueError("`image` has to be given")

    monkeypatch.setattr(type(pipeline.stock), "check_inputs", refuse)
    with pytest.raises(ModelUnsupported, match="draws no image: ValueError: `image` has to be given"):
        warm_up(pipeline, 3.0, 1, lambda _: None)


def test_loaded_weights_have_the_precision_of_the_pool(folder: Path) -> None:
    """The folder's own does not matter."""
    assert load_pipeline(folder, "bf16", 48, 32, "cpu").dtype == torch.bfloat16
