"""Downloads of the hub's own client from a played hub: what is fetched, kept, and used when the hub is away."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from played_hub import COMMIT, PlayedHub, played_hub
from t2i_sources import MODEL, SourceUnreachable, find_folder

SOURCE = "hf://acme/tiny"
FILES = {
    "README.md": b"not needed",
    "model_index.json": json.dumps({"_class_name": "X", "unet": ["diffusers", "UNet2DConditionModel"]}).encode(),
    "unet/config.json": b"{}",
    "unet/diffusion_pytorch_model.safetensors": b"plain" * 200,
    "unet/diffusion_pytorch_model.fp16.safetensors": b"half" * 200,
    "tiny.safetensors": b"all in one file",
}
NEEDED = {"model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.fp16.safetensors"}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[PlayedHub]:
    with played_hub("acme/tiny", FILES) as started:
        monkeypatch.setenv("HF_ENDPOINT", started.endpoint)
        yield started


def test_only_what_is_needed_is_downloaded_and_only_once(hub: PlayedHub, tmp_path: Path) -> None:
    """The weights at the pool's precision; a second start does not ask the hub at all."""
    folder = find_folder(MODEL, SOURCE, tmp_path, variant="fp16")
    assert hub.fetched == NEEDED
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == NEEDED
    hub.asked.clear()
    assert find_folder(MODEL, SOURCE, tmp_path, variant="fp16") == folder
    assert hub.asked == []


def test_another_precision_is_another_download(hub: PlayedHub, tmp_path: Path) -> None:
    """What was written down for one is no proof that the other is whole."""
    find_folder(MODEL, SOURCE, tmp_path, variant="fp16")
    folder = find_folder(MODEL, SOURCE, tmp_path)
    assert (folder / "unet/diffusion_pytorch_model.safetensors").read_bytes() == b"plain" * 200


def test_download_that_was_cut_off_is_taken_up_again(hub: PlayedHub, tmp_path: Path) -> None:
    """A folder with half of the files is not taken for the model; what is there is not fetched again."""
    hub.files.pop("unet/diffusion_pytorch_model.fp16.safetensors")
    find_folder(MODEL, SOURCE, tmp_path)  # the plain weights; then those of the asked precision appear
    snapshot = tmp_path / "models--acme--tiny" / "snapshots" / COMMIT
    (snapshot / "unet/config.json").unlink()
    hub.asked.clear()
    folder = find_folder(MODEL, SOURCE, tmp_path)
    assert (folder / "unet/config.json").read_bytes() == b"{}"
    assert "unet/diffusion_pytorch_model.safetensors" not in hub.fetched


@pytest.mark.parametrize("note", ["", "{", "[]", "{}", '{"commit": 1, "files": 2}'])
def test_damaged_note_is_no_note(hub: PlayedHub, tmp_path: Path, note: str) -> None:
    """What says that a download is whole was itself cut off, or written by another version: the hub is asked again."""
    folder = find_folder(MODEL, SOURCE, tmp_path)
    for path in (tmp_path / "models--acme--tiny").glob("t2i-*.json"):
        path.write_text(note)
    assert find_folder(MODEL, SOURCE, tmp_path) == folder


def test_folder_that_cannot_be_written_is_said(hub: PlayedHub, tmp_path: Path) -> None:
    """A file where the folder should be, as root can write anywhere else; a full disk ends in the same error."""
    (tmp_path / "models").write_text("")
    with pytest.raises(SourceUnreachable, match=r"model\.source: 'acme/tiny' cannot be kept"):
        find_folder(MODEL, SOURCE, tmp_path / "models")


def test_hub_away(hub: PlayedHub, tmp_path: Path) -> None:
    """Without the hub a whole download serves; nothing there is an error that can pass."""
    hub.up = False
    with pytest.raises(SourceUnreachable, match=r"model\.source: 'acme/tiny' is not under the models folder"):
        find_folder(MODEL, SOURCE, tmp_path)
    hub.up = True
    folder = find_folder(MODEL, SOURCE, tmp_path)
    hub.up = False
    assert find_folder(MODEL, SOURCE, tmp_path) == folder
