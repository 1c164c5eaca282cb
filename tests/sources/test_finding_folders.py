"""Where models and embedders come from: each kind of source finds its folder, or says what is wrong with the field."""

import json
from pathlib import Path

import pytest

from t2i_api.model import ModelPart
from t2i_sources import EMBEDDER, MODEL, SourceMissing, find_folder
from t2i_worker.digests import component_digest, model_digest
from t2i_worker.errors import ModelNotFound
from t2i_worker.starting import find_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A models folder with `claim/sdxl`, and a hub repository that somebody put there; the hub cannot be reached."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    folder = tmp_path / "models"
    snapshot = folder / "models--acme--tiny" / "snapshots" / COMMIT
    for place in (folder / "claim" / "sdxl", tmp_path / "outside", snapshot):
        place.mkdir(parents=True)
        (place / "model_index.json").write_text(json.dumps({"_class_name": "X"}))
    references = folder / "models--acme--tiny" / "refs"
    references.mkdir()
    (references / "main").write_text(COMMIT)
    return folder


def test_each_source_finds_its_folder(models: Path) -> None:
    """builtin, file, pvc, and a hub repository that is there already: no network is needed."""
    assert (find_folder(MODEL, "builtin://scenes", models) / "unet").is_dir()
    assert (find_folder(EMBEDDER, "builtin://scenes", models) / "model.onnx").is_file()
    assert (find_folder(MODEL, "builtin://scenes/distilled", models) / "unet").is_dir()
    assert find_folder(EMBEDDER, "builtin://scenes/distilled", models) == find_folder(
        EMBEDDER, "builtin://scenes", models
    )
    assert find_folder(MODEL, f"file://{models}/claim/sdxl", models) == models / "claim" / "sdxl"
    assert find_folder(MODEL, "pvc://claim/sdxl", models) == (models / "claim" / "sdxl").resolve()
    assert find_folder(MODEL, "hf://acme/tiny", models).name == COMMIT
    assert find_folder(MODEL, f"hf://acme/tiny@{COMMIT}", models).name == COMMIT


@pytest.mark.parametrize(
    "source",
    [
        "builtin://nothing",
        "builtin://scenes/nothing",
        "builtin://scenes/../t2i_api",
        "file:///does/not/exist",
        "pvc://claim/missing",
        "pvc://../outside",
        "pvc://claim/../../outside",
        "s3://bucket/model",
        "sdxl",
        "",
        "hf://not a name",
        "hf://acme/absent",
    ],
)
def test_bad_source_names_the_field(models: Path, source: str) -> None:
    """One error kind that says which field; a path never leaves its volume."""
    with pytest.raises(SourceMissing, match=r"model\.source"):
        find_folder(MODEL, source, models)
    with pytest.raises(SourceMissing, match=r"model\.embedder"):
        find_folder(EMBEDDER, source, models)


def test_worker_says_it_in_its_own_errors(models: Path) -> None:
    """What a worker cannot start without is a ModelError, which it ends with."""
    with pytest.raises(ModelNotFound, match=r"model\.source"):
        find_model(ModelPart(source="file:///does/not/exist"), models)


def test_digest_follows_weights_and_settings_only(tmp_path: Path) -> None:
    """Two copies agree; another weight or config byte differs; notes, profile and embedder do not count."""
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        (folder / "unet").mkdir(parents=True)
        (folder / "model_index.json").write_text('{"unet": ["diffusers", "X"]}')
        (folder / "unet" / "model.safetensors").write_bytes(b"weights")
    first, second = (model_digest(folder) for folder in folders)
    assert first == second
    (folders[0] / "README.md").write_text("notes")
    (folders[0] / "profile.json").write_text("{}")
    (folders[0] / "embedder").mkdir()
    (folders[0] / "embedder" / "tokenizer.json").write_text("{}")
    assert model_digest(folders[0]) == first
    (folders[0] / "unet" / "model.safetensors").write_bytes(b"weightz")
    (folders[1] / "model_index.json").write_text('{ "unet": ["diffusers", "X"]}')
    assert len({first, model_digest(folders[0]), model_digest(folders[1])}) == 3


def test_digest_does_not_depend_on_how_a_folder_was_filled(tmp_path: Path) -> None:
    """Weights at another precision lie beside those that are loaded, or do not: it is the same model; and the two
    precisions are two.
    """
    (tmp_path / "unet").mkdir()
    (tmp_path / "model_index.json").write_text('{"unet": ["diffusers", "X"]}')
    (tmp_path / "unet" / "model.safetensors").write_bytes(b"plain")
    alone = model_digest(tmp_path)
    (tmp_path / "unet" / "model.fp16.safetensors").write_bytes(b"half")
    (tmp_path / "all_in_one.safetensors").write_bytes(b"all")
    assert model_digest(tmp_path) == alone
    assert model_digest(tmp_path, "fp16") != alone


def test_digest_of_a_component_is_that_of_its_files(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "diffusion_pytorch_model.safetensors").write_bytes(b"plain")
    before = component_digest(tmp_path)
    (tmp_path / "README.md").write_text("notes")
    assert component_digest(tmp_path) == before
    (tmp_path / "diffusion_pytorch_model.safetensors").write_bytes(b"other")
    assert component_digest(tmp_path) != before
