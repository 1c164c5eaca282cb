"""What a gateway accepts of a drawing, the worker reads as the same."""

from dataclasses import replace
from typing import Any

import pytest

from t2i_protos.v1 import drawing_pb2
from t2i_runtime.drawing import (
    ARGUMENTS,
    MAX_ARGUMENT_CHARACTERS,
    Flag,
    KnownParts,
    Number,
    Text,
    WholeNumber,
    drawing_message,
    drawing_violations,
    parse_drawing,
)
from t2i_runtime.input_images import KnownComponents, image_violations, parse_images

KNOWN = KnownParts({"style": 1.0, "faint": 0.2}, KnownComponents({"canny": 1.0}, {"face": 0.6}))
PNG = b"\x89PNG\r\n\x1a\n rest"
Value, Message = drawing_pb2.ArgumentValue, drawing_pb2.Drawing
Use, Images = drawing_pb2.AdapterUse, drawing_pb2.InputImages


def values_of(kind: Any) -> list[drawing_pb2.ArgumentValue]:
    """The least, the most, and what Python counts as false."""
    match kind:
        case Number() | WholeNumber():
            return [Value(number=kind.least), Value(number=kind.most)]
        case Flag():
            return [Value(flag=False), Value(flag=True)]
        case Text():
            return [Value(text=""), Value(text="2024"), Value(text="é" * MAX_ARGUMENT_CHARACTERS)]
    raise AssertionError(f"what does {kind} take?")


MESSAGES = {
    **{
        f"{name}={str(value).strip()[:20]}": Message(arguments={name: value})
        for name, kind in ARGUMENTS.items()
        for value in values_of(kind)
    },
    "nothing": Message(),
    "a sampler": Message(sampler="euler"),
    "an adapter at a scale that binary fractions cannot hold": Message(adapters=[Use(name="style", scale=0.1)]),
    "adapters at the pool's scales": Message(adapters=[Use(name="style"), Use(name="faint")]),
    "an adapter turned off": Message(adapters=[Use(name="style", scale=0.0)]),
    "images": Message(images=Images(init_image=PNG, mask=PNG, strength=0.7)),
    "references": Message(images=Images(reference_images=[PNG, PNG])),
    "a control image": Message(
        images=Images(control_images=[drawing_pb2.ControlImage(component="canny", image=PNG, scale=0.0)])
    ),
    "an image for an IP-Adapter beside one to start from": Message(
        images=Images(init_image=PNG, ip_adapter_images=[drawing_pb2.ControlImage(component="face", image=PNG)])
    ),
}


@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES)
def test_worker_reads_what_the_gateway_accepted(message: drawing_pb2.Drawing) -> None:
    assert not [*drawing_violations(message, KNOWN)]
    read = parse_drawing(message, KNOWN)
    forwarded = drawing_message(read)
    assert not [*drawing_violations(forwarded, KNOWN)]
    again = parse_drawing(forwarded, KNOWN)
    assert again == read
    for name, value in message.arguments.items():
        given = getattr(value, value.WhichOneof("kind"))
        assert again.arguments[name] == given
        assert isinstance(again.arguments[name], bool) == isinstance(given, bool)


def test_wrong_scale_names_its_adapter() -> None:
    message = Message(adapters=[Use(name="style", scale=3), Use(name="faint", scale=-1)])
    assert [one.description for one in drawing_violations(message, KNOWN)] == [
        "the scale of 'style' must be a number from 0 to 2",
        "the scale of 'faint' must be a number from 0 to 2",
    ]


def test_each_image_goes_to_a_component_of_its_kind() -> None:
    """And only one of a kind, at a scale in its range."""
    face, edges = (drawing_pb2.ControlImage(component=name, image=PNG) for name in ("face", "canny"))
    strong = drawing_pb2.ControlImage(component="face", image=PNG, scale=2.5)
    wrong = Images(control_images=[face], ip_adapter_images=[edges, strong])
    found = {
        one.field.removeprefix("drawing.images."): one.description for one in image_violations(wrong, KNOWN.components)
    }
    assert found == {
        "control_images[0].component": "'face' is no ControlNet of the pool; it has canny",
        "ip_adapter_images[0].component": "'canny' is no IP-Adapter of the pool; it has face",
        "ip_adapter_images[1].scale": "must be a number from 0 to 2",
        "ip_adapter_images": "must be at most 1",
    }


def test_repeats_with_another_image_for_the_adapter_are_other_requests() -> None:
    first = parse_images(
        Images(ip_adapter_images=[drawing_pb2.ControlImage(component="face", image=PNG)]), KNOWN.components
    )
    other = replace(first, ip_adapter_images=(first.ip_adapter_images[0]._replace(data=PNG + b"."),))
    weaker = replace(first, ip_adapter_images=(first.ip_adapter_images[0]._replace(scale=0.5),))
    assert first
    assert len({one.digest for one in (first, other, weaker)}) == 3
