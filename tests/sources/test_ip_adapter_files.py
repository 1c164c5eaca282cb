"""Where an IP-Adapter's files are: its encoder beside the weights, elsewhere in the source, or at its own address."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from played_hub import PlayedHub, played_hub
from t2i_sources import IpAdapterFiles, SourceMissing, find_ip_adapter

WEIGHTS, ENCODER = "ip_adapter.safetensors", "hf://acme/clip"
FILES = {
    "README.md": b"not needed",
    "config.json": b"{}",
    "preprocessor_config.json": b'{"size": 224}',
    "model.safetensors": b"safe",
    "pytorch_model.bin": b"pickle",
}
NEEDED = {"config.json", "preprocessor_config.json", "model.safetensors"}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[PlayedHub]:
    with played_hub("acme/clip", FILES) as started:
        monkeypatch.setenv("HF_ENDPOINT", started.endpoint)
        yield started


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """An adapter without an encoder beside it, as those of FLUX and SD3 are published."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / WEIGHTS).write_bytes(b"weights")
    return folder


def test_encoder_of_another_repository_is_downloaded(hub: PlayedHub, source: Path, tmp_path: Path) -> None:
    """Its settings and one set of weights. The adapter's own source needs none."""
    found = find_ip_adapter("face", source.as_uri(), tmp_path / "models", WEIGHTS, ENCODER)
    assert found.weights == source / WEIGHTS
    assert {path.name for path in found.encoder.iterdir()} == hub.fetched == NEEDED


def test_encoder_at_an_address_of_its_own(source: Path, tmp_path: Path) -> None:
    encoder = tmp_path / "clip"
    encoder.mkdir()
    field = r"model\.components\['face'\]\.imageEncoder"
    with pytest.raises(SourceMissing, match=rf"{field} .*clip'.*a folder of an image encoder"):
        find_ip_adapter("face", source.as_uri(), tmp_path, WEIGHTS, encoder.as_uri())
    (encoder / "config.json").write_text("{}")
    found = find_ip_adapter("face", source.as_uri(), tmp_path, WEIGHTS, encoder.as_uri())
    assert found == IpAdapterFiles(source / WEIGHTS, encoder)


def test_encoder_that_is_not_beside_the_weights_says_where_it_may_be(source: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceMissing, match="no image encoder in image_encoder; set imageEncoder to its folder or its"):
        find_ip_adapter("face", source.as_uri(), tmp_path, WEIGHTS)
