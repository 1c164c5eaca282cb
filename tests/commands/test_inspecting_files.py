"""`t2ictl inspect` is given files of anyone: what is no image, or no XML, is told in a line."""

from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from typer.testing import CliRunner

from t2ictl.app import app
from t2ictl.file_metadata import read_metadata

BOMB = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">]><x:xmpmeta xmlns:x="adobe:ns:meta/">&a;</x:xmpmeta>'
ELEMENTS = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/"><xmp:CreatorTool>other</xmp:CreatorTool>'
    "</rdf:Description></rdf:RDF></x:xmpmeta>"
)


def write_png(path: Path, packet: str) -> Path:
    chunks = PngInfo()
    chunks.add_itxt("XML:com.adobe.xmp", packet)
    Image.new("RGB", (8, 8)).save(path, pnginfo=chunks)
    return path


@pytest.mark.parametrize("packet", [BOMB, "<x", "no xml"])
def test_packet_that_is_none_is_told_in_a_line(tmp_path: Path, packet: str) -> None:
    answer = CliRunner().invoke(app, ["inspect", str(write_png(tmp_path / "image.png", packet))])
    assert answer.exit_code != 0
    assert "XMP packet is not readable" in answer.output
    assert "Traceback" not in answer.output


@pytest.mark.parametrize("data", [b"", b"plain text", b"\x89PNG\r\n\x1a\n rest"])
def test_file_that_is_no_image_is_told_in_a_line(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "file").write_bytes(data)
    answer = CliRunner().invoke(app, ["inspect", str(tmp_path / "file")])
    assert answer.exit_code != 0
    assert "Traceback" not in answer.output


def test_missing_file_is_told_in_a_line(tmp_path: Path) -> None:
    answer = CliRunner().invoke(app, ["inspect", str(tmp_path / "none.png")])
    assert answer.exit_code != 0
    assert "Traceback" not in answer.output


def test_properties_of_other_programs_are_read_too(tmp_path: Path) -> None:
    """They write elements where we write attributes."""
    assert read_metadata(write_png(tmp_path / "image.png", ELEMENTS)) == {"xmp:CreatorTool": "other"}
