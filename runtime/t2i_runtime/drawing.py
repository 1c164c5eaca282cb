"""How a request wants its image drawn, beyond prompt, size and steps: the wire's `Drawing`, checked.

Gateway and worker read it by the same rules. A worker knows its pipeline besides, and refuses what that does not take.
"""

import hashlib
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

from t2i_protos.v1 import drawing_pb2
from t2i_runtime.errors import Violation
from t2i_runtime.input_images import (
    MAX_SCALE,
    NO_IMAGES,
    InputImages,
    KnownComponents,
    image_violations,
    images_message,
    parse_images,
)

MAX_ARGUMENT_CHARACTERS = 4096
MAX_SAMPLER_CHARACTERS = 64
_FLAGS = {"true": True, "false": False}

Argument = float | int | bool | str


class Number(NamedTuple):
    least: float
    most: float

    def accepts(self, value: Argument | None) -> bool:
        return isinstance(value, float) and self.least <= value <= self.most

    def __str__(self) -> str:
        return f"a number from {self.least:g} to {self.most:g}"


class WholeNumber(NamedTuple):
    least: int
    most: int

    def accepts(self, value: Argument | None) -> bool:
        return isinstance(value, float) and self.least <= value <= self.most and value.is_integer()

    def __str__(self) -> str:
        return f"a whole number from {self.least} to {self.most}"


class Flag:
    @staticmethod
    def accepts(value: Argument | None) -> bool:
        return isinstance(value, bool)

    def __str__(self) -> str:
        return "a flag, true or false"


class Text:
    @staticmethod
    def accepts(value: Argument | None) -> bool:
        return isinstance(value, str) and len(value) <= MAX_ARGUMENT_CHARACTERS

    def __str__(self) -> str:
        return f"a text of at most {MAX_ARGUMENT_CHARACTERS} characters"


#: Arguments of diffusers' pipelines that a request may set. None of them changes how many images or steps there are.
ARGUMENTS: Mapping[str, WholeNumber | Number | Flag | Text] = {
    "aesthetic_score": Number(0, 10),
    "cfg_normalization": Flag(),
    "cfg_truncation": Number(0, 1),
    "clip_skip": WholeNumber(1, 12),
    "eta": Number(0, 1),
    "guidance_rescale": Number(0, 1),
    "image_guidance_scale": Number(1, 30),
    "max_sequence_length": WholeNumber(1, 1024),
    "negative_aesthetic_score": Number(0, 10),
    "negative_prompt_2": Text(),
    "negative_prompt_3": Text(),
    "pag_adaptive_scale": Number(0, 1),
    "pag_scale": Number(0, 30),
    "prompt_2": Text(),
    "prompt_3": Text(),
    "system_prompt": Text(),
    "true_cfg_scale": Number(0, 30),
}


class ScaledAdapter(NamedTuple):
    """A LoRA adapter of the pool at a scale; 1.0 = as trained."""

    name: str
    scale: float


@dataclass(frozen=True, slots=True)
class Drawing:
    """`sampler` "" is the model's own. `arguments` are of the pipeline's call, by diffusers' names.

    `adapters` are in the order of their names, because the same ones give the same image in any order. Those of scale 0
    are left out. `rescaled`: one of them has another scale than the pool's.
    """

    sampler: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    images: InputImages = NO_IMAGES
    adapters: Sequence[ScaledAdapter] = ()
    rescaled: bool = False

    @property
    def is_measured(self) -> bool:
        """Whether levels count as measured for it: what the pool does by itself, and its adapters as it has them."""
        return not (self.sampler or self.arguments or self.images or self.rescaled)

    def digest(self, adapter_files: Mapping[str, str]) -> str:
        """Stands for it in the key of a latent; empty for what the pool does by itself.

        Adapters count by the digests of their files, which are given by name.
        """
        parts = [self.sampler, *(f"{name}={self.arguments[name]!r}" for name in sorted(self.arguments))]
        if self.images:
            parts.append(f"images={self.images.digest}")
        if self.adapters:
            parts += sorted(f"adapter={adapter_files.get(one.name, one.name)}@{one.scale!r}" for one in self.adapters)
        return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:32] if any(parts) else ""


PLAIN = Drawing()


class KnownParts(NamedTuple):
    """What the pool has beside its model; adapters by name, each with its own scale."""

    adapters: Mapping[str, float] = MappingProxyType({})
    components: KnownComponents = KnownComponents()


def parse_drawing(message: drawing_pb2.Drawing, known: KnownParts) -> Drawing:
    """`drawing_violations` must have found nothing."""
    scales = {use.name: _scale(use, known.adapters) for use in message.adapters}
    used = [ScaledAdapter(name, scale) for name, scale in sorted(scales.items()) if scale]
    return Drawing(
        message.sampler,
        {name: _value(name, one) for name, one in message.arguments.items()},
        parse_images(message.images, known.components),
        tuple(used),
        rescaled=any(one.scale != _rounded(known.adapters[one.name]) for one in used),
    )


def drawing_violations(message: drawing_pb2.Drawing, known: KnownParts) -> Iterator[Violation]:
    if len(message.sampler) > MAX_SAMPLER_CHARACTERS or not message.sampler.isprintable():
        yield Violation("drawing.sampler", f"must be at most {MAX_SAMPLER_CHARACTERS} printable characters")
    for name in sorted(message.arguments):
        place, kind = f"drawing.arguments[{name[:MAX_SAMPLER_CHARACTERS]!r}]", ARGUMENTS.get(name)
        if kind is None:
            yield Violation(place, f"is not known; those that are taken: {', '.join(sorted(ARGUMENTS))}")
        elif not kind.accepts(_given(message.arguments[name])):
            yield Violation(place, f"must be {kind}")
    yield from image_violations(message.images, known.components)
    yield from _adapter_violations([use.name for use in message.adapters], known.adapters)
    for use in message.adapters:
        if use.HasField("scale") and not 0 <= use.scale <= MAX_SCALE:
            shown = repr(use.name[:MAX_SAMPLER_CHARACTERS])
            yield Violation("drawing.adapters", f"the scale of {shown} must be a number from 0 to {MAX_SCALE:g}")


def _adapter_violations(names: Sequence[str], known: Collection[str]) -> Iterator[Violation]:
    for name in sorted({*names}):
        shown = repr(name[:MAX_SAMPLER_CHARACTERS])
        if name not in known:
            there = f"those of the pool: {', '.join(sorted(known))}" if known else "the pool has none"
            yield Violation("drawing.adapters", f"{shown} is not known; {there}")
        elif names.count(name) > 1:
            yield Violation("drawing.adapters", f"{shown} must be there once: add up its scales")


def drawing_message(drawing: Drawing) -> drawing_pb2.Drawing:
    """`parse_drawing` reads it back equal."""
    message = drawing_pb2.Drawing(sampler=drawing.sampler)
    for name, value in drawing.arguments.items():
        message.arguments[name].CopyFrom(argument_value(value))
    if drawing.images:
        message.images.CopyFrom(images_message(drawing.images))
    for adapter in drawing.adapters:
        message.adapters.add(name=adapter.name, scale=adapter.scale)
    return message


def argument_value(value: Argument) -> drawing_pb2.ArgumentValue:
    """On the wire."""
    match value:
        case bool():
            return drawing_pb2.ArgumentValue(flag=value)
        case str():
            return drawing_pb2.ArgumentValue(text=value)
    return drawing_pb2.ArgumentValue(number=value)


def argument_in(name: str, text: str) -> Argument:
    """What a text says of an argument. 2024 stays a text where the argument takes one. Of others its form decides."""
    if isinstance(ARGUMENTS.get(name), Text):
        return text
    if text.lower() in _FLAGS:
        return _FLAGS[text.lower()]
    try:
        number = float(text)
    except ValueError:
        return text
    return number if math.isfinite(number) else text


def _scale(use: drawing_pb2.AdapterUse, own_scales: Mapping[str, float]) -> float:
    return _rounded(use.scale if use.HasField("scale") else own_scales[use.name])


def _rounded(scale: float) -> float:
    """The wire has half the digits of a Python number: both ends must read the same."""
    return round(scale, 4)


def _given(value: drawing_pb2.ArgumentValue) -> Argument | None:
    match value.WhichOneof("kind"):
        case "number":
            return value.number
        case "flag":
            return value.flag
        case "text":
            return value.text
    return None


def _value(name: str, value: drawing_pb2.ArgumentValue) -> Argument | None:
    return int(value.number) if isinstance(ARGUMENTS[name], WholeNumber) else _given(value)
