"""Where a model comes from: each kind of source finds its folder, or says what is wrong with the field."""

import json
from pathlib import Path

import pytest

from t2i_worker.digests import model_digest
from t2i_worker.errors import ModelNotFound
from t2i_worker.sources import resolve_source

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A models folder with `claim/sdxl`, and a downloaded hub repository as the hub's own cache lays it out."""
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
    assert (resolve_source("builtin://scenes", models) / "unet").is_dir()
    assert resolve_source(f"file://{models}/claim/sdxl", models) == models / "claim" / "sdxl"
    assert resolve_source("pvc://claim/sdxl", models) == (models / "claim" / "sdxl").resolve()
    assert resolve_source("hf://acme/tiny", models).name == COMMIT
    assert resolve_source(f"hf://acme/tiny@{COMMIT}", models).name == COMMIT


@pytest.mark.parametrize(
    "source",
    [
        "builtin://nothing",
        "file:///does/not/exist",
        "pvc://claim/missing",
        "pvc://../outside",
        "pvc://claim/../../outside",
        "s3://bucket/model",
        "sdxl",
        "",
        "hf://not a name",
    ],
)
def test_bad_source_names_the_field(models: Path, source: str) -> None:
    """One error kind that says `model.source`; a path never leaves its volume."""
    with pytest.raises(ModelNotFound, match=r"model\.source"):
        resolve_source(source, models)


def test_digest_follows_weights_and_settings_only(tmp_path: Path) -> None:
    """Two copies agree; another weight or config byte differs; notes, profile and embedder do not count."""
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        (folder / "unet").mkdir(parents=True)
        (folder / "model_index.json").write_text("{}")
        (folder / "unet" / "model.safetensors").write_bytes(b"weights")
    first, second = (model_digest(folder) for folder in folders)
    assert first == second
    (folders[0] / "README.md").write_text("notes")
    (folders[0] / "profile.json").write_text("{}")
    (folders[0] / "embedder").mkdir()
    (folders[0] / "embedder" / "tokenizer.json").write_text("{}")
    assert model_digest(folders[0]) == first
    (folders[0] / "unet" / "model.safetensors").write_bytes(b"weightz")
    (folders[1] / "model_index.json").write_text("{ }")
    assert len({first, model_digest(folders[0]), model_digest(folders[1])}) == 3
