"""How an image is drawn, from the command line."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from t2i_protos.v1 import drawing_pb2
from t2i_runtime.drawing import argument_in, argument_value
from t2i_runtime.input_images import KnownComponents, image_violations
from t2ictl.errors import InputInvalid

SamplerName = Annotated[str, typer.Option(help="a noise scheduler instead of the model's own, such as dpm++-2m-karras")]
Arguments = Annotated[
    list[str] | None,
    typer.Option("--argument", metavar="NAME=VALUE", help="of the model's pipeline, such as clip_skip=2; repeatable"),
]
ImageFile = Annotated[Path | None, typer.Option(metavar="FILE", help="draw from this image: PNG, JPEG or WEBP")]
MaskFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="with --init-image: white is drawn anew, black stays")
]
Strength = Annotated[
    float | None, typer.Option(min=0, max=1, help="how far from --init-image; this share of the steps runs")
]
ReferenceFiles = Annotated[
    list[Path] | None,
    typer.Option("--reference-image", metavar="FILE", help="what an editing model looks at; repeatable"),
]
Adapters = Annotated[
    list[str] | None,
    typer.Option("--adapter", metavar="NAME[:SCALE]", help="a LoRA adapter of the pool; repeatable"),
]
Controls = Annotated[
    list[str] | None,
    typer.Option("--control", metavar="NAME=FILE[:SCALE]", help="an image for a ControlNet of the pool"),
]
IpAdapterImages = Annotated[
    list[str] | None,
    typer.Option("--ip-image", metavar="NAME=FILE[:SCALE]", help="an image for an IP-Adapter of the pool"),
]


def drawing_of(
    sampler: str, arguments: Sequence[str] | None, adapters: Sequence[str] | None = None
) -> drawing_pb2.Drawing:
    """Raises:
    InputInvalid: an argument is not NAME=VALUE, or a scale is no number.
    """
    drawing = drawing_pb2.Drawing(sampler=sampler)
    for given in arguments or ():
        name, equals, text = given.partition("=")
        if not (name and equals):
            raise InputInvalid(f"--argument must be NAME=VALUE, got {given!r}")
        drawing.arguments[name].CopyFrom(argument_value(argument_in(name, text)))
    for given in adapters or ():
        name, colon, text = given.partition(":")
        drawing.adapters.add(name=name, scale=_scale("--adapter", given, text) if colon else None)
    return drawing


def images_of(
    init_image: Path | None, strength: float | None, mask: Path | None, reference_images: Sequence[Path] | None
) -> drawing_pb2.InputImages:
    """Raises:
    InputInvalid: a file cannot be read or used, or an option lacks another.
    """
    message = drawing_pb2.InputImages(
        init_image=_bytes_of("--init-image", init_image),
        strength=strength,
        mask=_bytes_of("--mask", mask),
        reference_images=[_bytes_of("--reference-image", path) for path in reference_images or ()],
    )
    problems = [f"{_option_of(field)} {text}" for field, text in image_violations(message, KnownComponents())]
    if problems:
        raise InputInvalid("; ".join(problems).replace("init_image", "--init-image"))
    return message


def component_images_of(controls: Sequence[str] | None, shown: Sequence[str] | None) -> drawing_pb2.InputImages:
    """Images for ControlNets and for IP-Adapters.

    Raises:
        InputInvalid: not NAME=FILE or NAME=FILE:SCALE, or a file cannot be read.
    """
    return drawing_pb2.InputImages(
        control_images=[_component_image("--control", given) for given in controls or ()],
        ip_adapter_images=[_component_image("--ip-image", given) for given in shown or ()],
    )


def _component_image(option: str, given: str) -> drawing_pb2.ControlImage:
    name, equals, rest = given.partition("=")
    if not (name and equals and rest):
        raise InputInvalid(f"{option} must be NAME=FILE or NAME=FILE:SCALE, got {given!r}")
    file, colon, text = (rest, "", "") if Path(rest).exists() else rest.rpartition(":")
    scale = _scale(option, given, text) if colon else None
    return drawing_pb2.ControlImage(component=name, image=_bytes_of(option, Path(file or rest)), scale=scale)


def _bytes_of(option: str, path: Path | None) -> bytes:
    if path is None:
        return b""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputInvalid(f"{option}: cannot read {path}: {error.strerror}") from error
    if not data:
        raise InputInvalid(f"{option}: {path} is empty")
    return data


def _option_of(field: str) -> str:
    """`drawing.images.reference_images[0]` is what --reference-image said."""
    name = field.removeprefix("drawing.images").lstrip(".").partition("[")[0].removesuffix("s")
    return f"--{name.replace('_', '-')}" if name else "all images"


def _scale(option: str, given: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputInvalid(f"{option}: the scale must be a number, got {given!r}") from None
