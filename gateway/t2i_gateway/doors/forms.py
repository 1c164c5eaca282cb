"""What a body becomes: JSON to draw from a prompt, a form with files to edit images."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from t2i_gateway.doors.errors import HttpRefused
from t2i_gateway.doors.fields import EditBody, ImageBody, given_twice, parse_body, parse_fields
from t2i_protos.v1 import drawing_pb2
from t2i_runtime.input_images import MAX_ALL_BYTES, MAX_REFERENCE_IMAGES

JSON_TYPE, FORM_TYPE = "application/json", "multipart/form-data"
MAX_TEXT_BYTES = 64 << 10
MAX_FIELDS = 64
SLICE_BYTES = 256 << 10
IMAGES, MASK, SHOWN = ("image", "image[]"), "mask", "ip_adapter_image"
FILES = (*IMAGES, MASK, SHOWN)
IN_A_THREAD_BYTES = 256 << 10  # JSON with images in it takes longer than others should wait


@dataclass(frozen=True, slots=True)
class AskedImages:
    """Fields, and the images to start from; None = there are none."""

    body: ImageBody
    files: drawing_pb2.InputImages | None = field(default=None, repr=False)


async def read_generation(_: Request, data: bytes) -> AskedImages:
    """Raises:
    HttpRefused: it is no JSON, or a field is wrong.
    """
    return AskedImages(await asyncio.to_thread(parse_body, data) if len(data) > IN_A_THREAD_BYTES else parse_body(data))


async def read_edit(request: Request, data: bytes) -> AskedImages:
    """Raises:
    HttpRefused: it is no form, a field is wrong, or an image is missing.
    """
    form = await _parse_form(request, data)
    try:
        body = parse_fields(_texts(form))
        files = await _files(form)
        files.ip_adapter_images.extend(await _shown(form, body))
    finally:
        await form.close()
    if body.strength is not None:
        files.strength = body.strength
    return AskedImages(body, files)


async def _parse_form(request: Request, data: bytes) -> FormData:
    """In memory: what was read is bounded, and nobody's image is written to a disk."""

    async def slices() -> AsyncGenerator[bytes, None]:
        for start in range(0, len(data), SLICE_BYTES):
            yield data[start : start + SLICE_BYTES]
            await asyncio.sleep(0)  # others go on

    parser = MultiPartParser(
        request.headers, slices(), max_files=MAX_FIELDS, max_fields=MAX_FIELDS, max_part_size=MAX_TEXT_BYTES
    )
    parser.spool_max_size = MAX_ALL_BYTES * 2
    try:
        return await parser.parse()
    except MultiPartException as error:
        raise HttpRefused(400, f"the form cannot be read: {error.message}", code="invalid_form") from None


def _texts(form: FormData) -> dict[str, str]:
    """Raises:
    HttpRefused: a field is there twice.
    """
    texts: dict[str, str] = {}
    for name, value in form.multi_items():
        if isinstance(value, str) and name not in FILES:
            if name in texts:
                raise given_twice(name)
            texts[name] = value
    return texts


async def _files(form: FormData) -> drawing_pb2.InputImages:
    """One image is the one to start from; several are what an editing model looks at."""
    images = [await _bytes_of(name, value) for name, value in form.multi_items() if name in IMAGES]
    masks = [await _bytes_of(name, value) for name, value in form.multi_items() if name == MASK]
    if not images:
        raise HttpRefused(400, "Missing required parameter: 'image'.", param="image", code="missing_required_parameter")
    if len(masks) > 1:
        raise HttpRefused(400, "send one mask", param=MASK)
    if len(images) > MAX_REFERENCE_IMAGES:
        raise HttpRefused(400, f"send at most {MAX_REFERENCE_IMAGES} images, got {len(images)}", param=IMAGES[0])
    if len(images) > 1 and masks:
        raise HttpRefused(400, "a mask goes with one image: send one, or leave the mask out", param=MASK)
    unknown = sorted({name for name, value in form.multi_items() if _is_file(value)} - {*FILES})
    if unknown:
        text = f"Unknown parameter: '{unknown[0][:64]}'. Files are image, image[], mask and {SHOWN}."
        raise HttpRefused(400, text, param=unknown[0][:64], code="unknown_parameter")
    if len(images) > 1:
        return drawing_pb2.InputImages(reference_images=images)
    return drawing_pb2.InputImages(init_image=images[0], mask=masks[0] if masks else b"")


async def _shown(form: FormData, body: EditBody) -> list[drawing_pb2.ControlImage]:
    """What an IP-Adapter is shown."""
    files = [await _bytes_of(name, value) for name, value in form.multi_items() if name == SHOWN]
    if len(files) > 1:
        raise given_twice(SHOWN)
    if bool(files) != (body.ip_adapter is not None):
        missing = "ip_adapter" if files else SHOWN
        text = f"{SHOWN} and ip_adapter belong together: send both, or neither"
        raise HttpRefused(400, text, param=missing, code="missing_required_parameter")
    if body.ip_adapter_scale is not None and not files:
        raise HttpRefused(400, f"ip_adapter_scale needs {SHOWN}: send it, or leave the scale out", param=SHOWN)
    return [
        drawing_pb2.ControlImage(component=body.ip_adapter or "", image=file, scale=body.ip_adapter_scale)
        for file in files
    ]


def _is_file(value: UploadFile | str) -> bool:
    return isinstance(value, UploadFile)


async def _bytes_of(name: str, value: UploadFile | str) -> bytes:
    if isinstance(value, str):
        raise HttpRefused(400, f"'{name}' must be a file: PNG, JPEG or WEBP", param=name, code="invalid_type")
    return await value.read() or b"\0"  # an empty file is no image, and not a missing one
