"""The images that a request starts from: the wire's `InputImages`, checked by size and kind of file.

Nothing is decoded here. A gateway never decodes images of strangers; a worker does, within bounds of its own.
"""

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from t2i_protos.v1 import drawing_pb2
from t2i_runtime.errors import Violation

MAX_FILE_BYTES = 8 << 20
MAX_ALL_BYTES = 16 << 20
MAX_REFERENCE_IMAGES = 4
MAX_CONTROL_IMAGES = 1
MAX_IP_ADAPTER_IMAGES = 1
MAX_SCALE = 2.0
KINDS = "PNG, JPEG or WEBP"


class ComponentFile(NamedTuple):
    """The input of a component of the pool, a ControlNet or an IP-Adapter, and how strongly that acts."""

    component: str
    data: bytes
    scale: float


@dataclass(frozen=True, slots=True)
class InputImages:
    """Files as they came; empty: none. `strength` None: the pipeline's own."""

    init_image: bytes = field(default=b"", repr=False)
    strength: float | None = None
    mask: bytes = field(default=b"", repr=False)
    reference_images: tuple[bytes, ...] = field(default=(), repr=False)
    control_images: tuple[ComponentFile, ...] = field(default=(), repr=False)
    ip_adapter_images: tuple[ComponentFile, ...] = field(default=(), repr=False)

    def __bool__(self) -> bool:
        own = self.init_image or self.mask or self.reference_images
        return bool(own or self.control_images or self.ip_adapter_images)

    @property
    def digest(self) -> str:
        """Of what they hold; empty for none."""
        if not self:
            return ""
        files = (self.init_image, self.mask, *self.reference_images)
        parts = [repr(self.strength), *(hashlib.sha256(data).hexdigest() for data in files)]
        for component, data, scale in (*self.control_images, *self.ip_adapter_images):
            parts += [component, repr(scale), hashlib.sha256(data).hexdigest()]
        return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()

    @property
    def steps_share(self) -> float:
        """Which share of the steps runs, as far as the request says."""
        return self.strength if self.init_image and self.strength is not None else 1.0

    @property
    def used(self) -> frozenset[str]:
        """Names of the fields that are set, without those of components."""
        given = {"init_image": self.init_image, "mask": self.mask, "reference_images": self.reference_images}
        names = {name for name, value in given.items() if value}
        return frozenset(names if self.strength is None else {*names, "strength"})


NO_IMAGES = InputImages()


class KnownComponents(NamedTuple):
    """The pool's components by name, each with its own scale."""

    controls: Mapping[str, float] = MappingProxyType({})
    ip_adapters: Mapping[str, float] = MappingProxyType({})


def parse_images(message: drawing_pb2.InputImages, known: KnownComponents) -> InputImages:
    """`image_violations` must have found nothing.

    A strength of 0.7 is again 0.7, and not the 32 bits beside it.
    """
    return InputImages(
        init_image=message.init_image,
        strength=round(message.strength, 6) if message.HasField("strength") else None,
        mask=message.mask,
        reference_images=tuple(message.reference_images),
        control_images=_component_files(message.control_images, known.controls),
        ip_adapter_images=_component_files(message.ip_adapter_images, known.ip_adapters),
    )


def _component_files(
    given: Iterable[drawing_pb2.ControlImage], own_scales: Mapping[str, float]
) -> tuple[ComponentFile, ...]:
    return tuple(
        ComponentFile(
            one.component, one.image, round(one.scale, 6) if one.HasField("scale") else own_scales[one.component]
        )
        for one in given
    )


def images_message(images: InputImages) -> drawing_pb2.InputImages:
    """`parse_images` reads it back equal."""
    return drawing_pb2.InputImages(
        init_image=images.init_image,
        strength=images.strength,
        mask=images.mask,
        reference_images=images.reference_images,
        control_images=[_component_message(one) for one in images.control_images],
        ip_adapter_images=[_component_message(one) for one in images.ip_adapter_images],
    )


def _component_message(one: ComponentFile) -> drawing_pb2.ControlImage:
    return drawing_pb2.ControlImage(component=one.component, image=one.data, scale=one.scale)


def image_violations(message: drawing_pb2.InputImages, known: KnownComponents) -> Iterator[Violation]:
    place = "drawing.images"
    files = dict(_files(message))
    for name, data in files.items():
        if problem := _file_problem(data):
            yield Violation(f"{place}.{name}", problem)
    if sum(map(len, files.values())) > MAX_ALL_BYTES:
        yield Violation(place, f"must be at most {MAX_ALL_BYTES >> 20} MiB together")
    if len(message.reference_images) > MAX_REFERENCE_IMAGES:
        yield Violation(f"{place}.reference_images", f"must be at most {MAX_REFERENCE_IMAGES}")
    if message.HasField("strength") and not 0 < message.strength <= 1:
        yield Violation(f"{place}.strength", "must be above 0 and at most 1")
    alone = {"strength": message.HasField("strength"), "mask": bool(message.mask)}
    for name, given in alone.items():
        if given and not message.init_image:
            yield Violation(f"{place}.{name}", "needs an init_image")
    if message.mask and message.reference_images:
        yield Violation(f"{place}.reference_images", "cannot be combined with a mask: leave one of them out")
    controls, shown = f"{place}.control_images", f"{place}.ip_adapter_images"
    yield from _component_violations(controls, message.control_images, known.controls, "ControlNet")
    yield from _component_violations(shown, message.ip_adapter_images, known.ip_adapters, "IP-Adapter")
    if len(message.control_images) > MAX_CONTROL_IMAGES:
        yield Violation(controls, f"must be at most {MAX_CONTROL_IMAGES}")
    if len(message.ip_adapter_images) > MAX_IP_ADAPTER_IMAGES:
        yield Violation(shown, f"must be at most {MAX_IP_ADAPTER_IMAGES}")
    if message.control_images and (message.init_image or message.mask or message.reference_images):
        yield Violation(controls, "cannot be combined with init_image, mask or reference_images")


def _component_violations(
    place: str, given: Iterable[drawing_pb2.ControlImage], known: Collection[str], kind: str
) -> Iterator[Violation]:
    there = f"it has {', '.join(sorted(known))}" if known else "it has none"
    for index, one in enumerate(given):
        if one.component not in known:
            yield Violation(f"{place}[{index}].component", f"{one.component[:64]!r} is no {kind} of the pool; {there}")
        if one.HasField("scale") and not 0 <= one.scale <= MAX_SCALE:
            yield Violation(f"{place}[{index}].scale", f"must be a number from 0 to {MAX_SCALE:g}")


def _files(message: drawing_pb2.InputImages) -> Iterator[tuple[str, bytes]]:
    for name in ("init_image", "mask"):
        if data := getattr(message, name):
            yield name, data
    for index, data in enumerate(message.reference_images):
        yield f"reference_images[{index}]", data
    for index, control in enumerate(message.control_images):
        yield f"control_images[{index}].image", control.image
    for index, shown in enumerate(message.ip_adapter_images):
        yield f"ip_adapter_images[{index}].image", shown.image


def _file_problem(data: bytes) -> str | None:
    if len(data) > MAX_FILE_BYTES:
        return f"must be at most {MAX_FILE_BYTES >> 20} MiB, got {len(data) / (1 << 20):.1f}"
    starts_well = data.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"))
    if not (starts_well or (data[:4] == b"RIFF" and data[8:12] == b"WEBP")):
        return f"must be a {KINDS} file"
    return None
