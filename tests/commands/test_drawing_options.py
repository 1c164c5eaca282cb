"""What `t2ictl generate` makes of the options for adapters and ControlNets."""

from pathlib import Path

import pytest

from t2ictl.drawing import component_images_of, drawing_of
from t2ictl.errors import InputInvalid

PNG = b"\x89PNG\r\n\x1a\n rest"


def test_adapters_with_and_without_a_scale() -> None:
    drawing = drawing_of("", None, ["pixel", "detail:0.5"])
    assert [(one.name, one.scale if one.HasField("scale") else None) for one in drawing.adapters] == [
        ("pixel", None),
        ("detail", 0.5),
    ]
    with pytest.raises(InputInvalid, match="--adapter: the scale must be a number, got 'pixel:much'"):
        drawing_of("", None, ["pixel:much"])


def test_images_of_components_with_and_without_a_scale(tmp_path: Path) -> None:
    """A colon in a file's name is no scale."""
    plain, colon = tmp_path / "edges.png", tmp_path / "a:2"
    for path in (plain, colon):
        path.write_bytes(PNG)
    given = [f"canny={plain}:0.5", f"depth={colon}"]
    for found in (component_images_of(given, None).control_images, component_images_of(None, given).ip_adapter_images):
        assert [(one.component, one.image, one.scale, one.HasField("scale")) for one in found] == [
            ("canny", PNG, 0.5, True),
            ("depth", PNG, 0.0, False),
        ]


@pytest.mark.parametrize("given", ["canny", "=edges.png", "canny=", "canny=missing.png", "canny=missing.png:x"])
def test_control_that_cannot_be_used_is_told(given: str) -> None:
    with pytest.raises(InputInvalid, match="--control"):
        component_images_of([given], None)
    with pytest.raises(InputInvalid, match="--ip-image"):
        component_images_of(None, [given])


@pytest.mark.parametrize(
    ("given", "kind", "value"),
    [
        ("clip_skip=2", "number", 2),
        ("cfg_normalization=false", "flag", False),
        ("cfg_normalization=True", "flag", True),
        ("prompt_2=2024", "text", "2024"),
        ("prompt_2=true", "text", "true"),
        ("system_prompt=", "text", ""),
        ("of_a_later_version=0.5", "number", 0.5),
        ("of_a_later_version=nan", "text", "nan"),
    ],
)
def test_argument_has_the_kind_of_its_name(given: str, kind: str, value: object) -> None:
    (found,) = drawing_of("", [given]).arguments.values()
    assert found.WhichOneof("kind") == kind
    assert getattr(found, kind) == value
