"""What a client asks for, checked: every field once, all violations reported together, an `ImageRequest` out."""

import math
import secrets
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace

from t2i_api.pool import PoolSpec
from t2i_gateway.errors import RequestInvalid
from t2i_policy.request.options import Limits
from t2i_protos.v1 import gateway_pb2, level_pb2
from t2i_runtime.errors import Violation

MAX_PROMPT_CHARACTERS = 4096
MAX_REQUEST_ID_CHARACTERS = 128
MAX_GUIDANCE_SCALE = 30.0
MAX_IMAGES = 10
MIN_MAX_STEPS = 100  # a request may fix a schedule of up to this many steps, or twice the pool's
Violations = Iterator[Violation]


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """One valid request. `named` is whether the client chose the request id, so that a repeat can be known."""

    request_id: str
    named: bool
    prompt: str
    negative_prompt: str
    seed: int
    guidance_scale: float
    output_format: level_pb2.OutputFormat.ValueType
    limits: Limits
    preview_every_steps: int
    num_images: int = 1

    @property
    def images(self) -> "tuple[ImageRequest, ...]":
        """One request for each image, with seeds in a row: each can be drawn again alone."""
        return tuple(replace(self, seed=(self.seed + index) % 2**64, num_images=1) for index in range(self.num_images))


def parse_request(request: gateway_pb2.GenerateRequest, spec: PoolSpec) -> ImageRequest:
    """Check a request against the pool.

    Raises:
        RequestInvalid: names every field that is wrong and what it should be.
    """
    violations = [*_text_violations(request), *_size_violations(request, spec), *_number_violations(request, spec)]
    if violations:
        raise RequestInvalid(violations)
    given_scale = request.HasField("guidance_scale")
    return ImageRequest(
        request_id=request.request_id or uuid.uuid4().hex,
        named=bool(request.request_id),
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        seed=request.seed if request.HasField("seed") else secrets.randbits(63),
        guidance_scale=request.guidance_scale if given_scale else spec.model.guidance_scale,
        output_format=request.output_format or level_pb2.OUTPUT_FORMAT_PNG,
        limits=_limits(request, spec),
        preview_every_steps=request.preview_every_steps,
        num_images=request.num_images or 1,
    )


def _limits(request: gateway_pb2.GenerateRequest, spec: PoolSpec) -> Limits:
    """A request can raise the pool's quality floor, not lower it."""
    floor = max(spec.slo.min_quality_percent, request.min_quality_percent)
    return Limits(
        max_loss=1 - floor / 100,
        max_skipped_steps=request.max_skipped_steps if request.HasField("max_skipped_steps") else None,
        exact=request.exact,
        fixed_steps=request.num_inference_steps if request.HasField("num_inference_steps") else None,
    )


def _text_violations(request: gateway_pb2.GenerateRequest) -> Violations:
    if not request.prompt.strip():
        yield Violation("prompt", "must not be empty")
    for name in ("prompt", "negative_prompt"):
        text = getattr(request, name)
        if len(text) > MAX_PROMPT_CHARACTERS:
            yield Violation(name, f"must be at most {MAX_PROMPT_CHARACTERS} characters, got {len(text)}")
        if "\0" in text:
            yield Violation(name, "must not contain NUL characters")
    if len(request.request_id) > MAX_REQUEST_ID_CHARACTERS or not request.request_id.isprintable():
        yield Violation("request_id", f"must be at most {MAX_REQUEST_ID_CHARACTERS} printable characters")


def _size_violations(request: gateway_pb2.GenerateRequest, spec: PoolSpec) -> Violations:
    for name, served in (("width", spec.model.width), ("height", spec.model.height)):
        if getattr(request, name) not in (0, served):
            yield Violation(
                name,
                f"this pool makes images of {spec.model.width}x{spec.model.height}; leave it out or ask for {served}",
            )


def _number_violations(request: gateway_pb2.GenerateRequest, spec: PoolSpec) -> Violations:
    if request.output_format not in level_pb2.OutputFormat.values():
        yield Violation("output_format", "must be PNG, JPEG or WEBP")
    if request.min_quality_percent > 100:
        yield Violation("min_quality_percent", f"must be from 0 to 100, got {request.min_quality_percent}")
    if request.num_images > MAX_IMAGES:
        yield Violation("num_images", f"must be from 1 to {MAX_IMAGES}, got {request.num_images}")
    most = max(MIN_MAX_STEPS, 2 * spec.model.num_inference_steps)
    if request.HasField("num_inference_steps") and not 1 <= request.num_inference_steps <= most:
        yield Violation("num_inference_steps", f"must be from 1 to {most}, got {request.num_inference_steps}")
    scale = request.guidance_scale
    if request.HasField("guidance_scale") and not (math.isfinite(scale) and 0 <= scale <= MAX_GUIDANCE_SCALE):
        yield Violation("guidance_scale", f"must be a number from 0 to {MAX_GUIDANCE_SCALE:.0f}")
