"""The file of an adapter is found, or the field is named with the next step; a pickle is never taken."""

from pathlib import Path

import pytest

from t2i_sources import SourceMissing, find_adapter

USUAL = "pytorch_lora_weights.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "claim" / "loras"
    made.mkdir(parents=True)
    for name in ("a.safetensors", "b.safetensors", "c.bin", "README.md"):
        (made / name).touch()
    return made


def test_file_is_named_usual_or_the_only_one(folder: Path, tmp_path: Path) -> None:
    assert find_adapter("x", f"file://{folder}/a.safetensors", tmp_path) == folder / "a.safetensors"
    assert find_adapter("x", "pvc://claim/loras", tmp_path, "b.safetensors") == folder / "b.safetensors"
    (folder / USUAL).touch()
    assert find_adapter("x", f"file://{folder}", tmp_path) == folder / USUAL
    for name in ("a.safetensors", USUAL):
        (folder / name).unlink()
    assert find_adapter("x", f"file://{folder}", tmp_path) == folder / "b.safetensors"


@pytest.mark.parametrize(
    ("source", "weight_name", "says"),
    [
        ("pvc://claim/loras", "", "set weightName to one of a.safetensors, b.safetensors"),
        ("pvc://claim/loras", "d.safetensors", "no d.safetensors found there"),
        ("pvc://claim/loras/c.bin", "", "no .safetensors file found there"),
        ("pvc://claim/missing", "", "no .safetensors file found there"),
        ("pvc://../outside", "", "must stay inside its volume"),
    ],
)
def test_what_is_not_there_names_the_adapter(
    folder: Path, tmp_path: Path, source: str, weight_name: str, says: str
) -> None:
    del folder
    with pytest.raises(SourceMissing, match=rf"model\.adapters\['x'\].*{says}"):
        find_adapter("x", source, tmp_path, weight_name)
