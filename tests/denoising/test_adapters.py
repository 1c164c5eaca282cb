"""LoRA adapters of a pool: each request draws with its own, as stock diffusers does with those alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from t2i_runtime.drawing import Drawing, ScaledAdapter
from t2i_testing_kit.tiny_pipelines.adapters import FILE, save_adapter, save_kohya_adapter
from t2i_testing_kit.tiny_pipelines.families import save_family
from t2i_testing_kit.tiny_pipelines.in_engine import TinyEngine
from t2i_testing_kit.tiny_pipelines.stock import TinyRequest, load_stock, stock_run
from t2i_worker.engine.warm_up import try_adapters
from t2i_worker.errors import ModelUnsupported
from t2i_worker.jobs import AdapterFacts
from t2i_worker.pipelines import AdapterFile, load_pipeline

Scales = Mapping[str, float]
SETS: Mapping[str, Scales] = {
    "none": {},
    "one": {"style": 1.0},
    "the same, weaker": {"style": 0.5},
    "one of a text encoder too": {"words": 1.0},
    "two": {"style": 1.0, "words": 0.7},
}


@pytest.fixture(scope="module")
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a family: `model`, and the adapters `style`, of the denoiser, and `words`, of a text encoder too."""
    made = tmp_path_factory.mktemp(request.param)
    save_family(request.param, made / "model")
    save_adapter(made / "model", made / "style", seed=1)
    save_adapter(made / "model", made / "words", seed=2, texts=True)
    return made


ROUNDING = 1  # of a pixel's 255: some CPUs add up a larger batch in another order
_FAMILIES = [(one, one) for one in ("sd15", "sdxl", "sd3", "flux-dev")]
of_families = pytest.mark.parametrize(("name", "folder"), _FAMILIES, indirect=["folder"])
of_sd15 = pytest.mark.parametrize("folder", ["sd15"], indirect=True)


def files(folder: Path, *names: str) -> list[AdapterFile]:
    return [AdapterFile(name, folder / name / FILE) for name in names]


def with_adapters(seed: int, scales: Scales) -> TinyRequest:
    used = tuple(ScaledAdapter(*item) for item in sorted(scales.items()))
    return TinyRequest(seed=seed, drawing=Drawing(adapters=used))


def stock_images(name: str, folder: Path, sets: Mapping[str, Scales]) -> list[Any]:
    """As diffusers' documentation says. Those without adapters come from a pipeline that has none."""
    plain, adapted = load_stock(folder / "model"), load_stock(folder / "model")
    for adapter in ("style", "words"):
        adapted.load_lora_weights(folder / adapter, adapter_name=adapter)
    images = []
    for seed, scales in enumerate(sets.values()):
        if scales:
            adapted.set_adapters(list(scales), list(scales.values()))
        images.append(stock_run(adapted if scales else plain, name, TinyRequest(seed=seed)).pixels)
    return images


@of_families
def test_each_of_a_mixed_batch_is_the_image_of_stock(name: str, folder: Path) -> None:
    """Requests with none, one, the same weaker, one for texts, and two meet at every step: nobody gets another's."""
    engine = TinyEngine(name, folder / "model", adapters=files(folder, "style", "words"))
    runs = engine.draw([with_adapters(seed, scales) for seed, scales in enumerate(SETS.values())])
    assert [run.error for run in runs] == [None] * len(runs)
    stock = stock_images(name, folder, SETS)
    differ = [what for what, run, image in zip(SETS, runs, stock, strict=True) if not np.array_equal(run.pixels, image)]
    assert differ == []
    plain = engine.draw([with_adapters(seed, {}) for seed in range(len(SETS))])  # in one forward: rounded otherwise
    apart = [np.abs(run.pixels.astype(int) - none.pixels).max() for run, none in zip(runs, plain, strict=True)]
    assert [what for what, far in zip(SETS, apart, strict=True) if far <= ROUNDING] == ["none"]


@of_sd15
def test_requests_of_equal_adapters_share_their_forwards(folder: Path) -> None:
    engine = TinyEngine("sd15", folder / "model", adapters=files(folder, "style"))
    style, weaker, none = SETS["one"], SETS["the same, weaker"], SETS["none"]
    engine.draw([with_adapters(seed, one) for seed, one in enumerate((style, none, style, none, weaker))])
    shared, alone = engine.batch_sizes[2], engine.batch_sizes[1]
    assert engine.batch_sizes == {2: shared, 1: alone}
    assert shared == 2 * alone


@of_sd15
def test_adapter_in_kohya_format_is_that_of_stock(folder: Path) -> None:
    file = save_kohya_adapter(folder / "model", folder / "kohya.safetensors", seed=3)
    engine = TinyEngine("sd15", folder / "model", adapters=[AdapterFile("kohya", file)])
    (run,) = engine.draw([with_adapters(0, {"kohya": 0.8})])
    stock = load_stock(folder / "model")
    stock.load_lora_weights(folder, weight_name=file.name, adapter_name="any")
    stock.set_adapters(["any"], [0.8])
    assert np.array_equal(run.pixels, stock_run(stock, "sd15", TinyRequest()).pixels)


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def of_another_width(file: Path) -> None:
    save_file({name: torch.cat([value, value], -1) for name, value in load_file(file).items()}, file)


def of_other_layers(file: Path) -> None:
    save_file({f"prior.{name}": value for name, value in load_file(file).items()}, file)


def not_finite(file: Path) -> None:
    save_file({name: torch.full_like(value, torch.nan) for name, value in load_file(file).items()}, file)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (cut_short, "cannot be loaded"),
        (of_another_width, "cannot be loaded"),
        (of_other_layers, "made for another model"),
        (not_finite, "draws no image with it"),
    ],
)
@of_sd15
def test_adapter_that_cannot_serve_is_named_at_the_start(folder: Path, tmp_path: Path, spoil: Any, says: str) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / FILE).write_bytes((folder / "style" / FILE).read_bytes())
    spoil(tmp_path / "bad" / FILE)
    bad = [*files(folder, "words"), *files(tmp_path, "bad")]
    with pytest.raises(ModelUnsupported, match=rf"model\.adapters\['bad'\].*{says}"):
        try_adapters(
            load_pipeline(folder / "model", "fp32", 48, 32, "cpu", bad),
            [AdapterFacts(one.name, "", 1.0) for one in bad],
            5.0,
            lambda _: None,
        )


def test_adapter_that_replaces_weights_is_refused(tmp_path: Path) -> None:
    """A control LoRA gives Flux a wider input layer: requests without it would draw with that too."""
    save_family("flux-dev", tmp_path / "model")
    layer = load_stock(tmp_path / "model").transformer.x_embedder
    prefix, wider = "transformer.x_embedder", 2 * layer.in_features
    weights = {
        f"{prefix}.lora_A.weight": torch.ones(4, wider),
        f"{prefix}.lora_B.weight": torch.ones(layer.out_features, 4),
    }
    (tmp_path / "control").mkdir()
    save_file(weights, tmp_path / "control" / FILE)
    with pytest.raises(ModelUnsupported, match=r"model\.adapters\['control'\].*replaces weights"):
        load_pipeline(tmp_path / "model", "fp32", 32, 32, "cpu", files(tmp_path, "control"))
