"""What a client asks for, checked: every field once, all violations reported together, an `ImageRequest` out."""

import math
import secrets
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from t2i_api.model import ModelPart
from t2i_api.pool import PoolSpec
from t2i_gateway.errors import RequestInvalid
from t2i_policy.image_size import ImageSize
from t2i_policy.request.guidance import AskedGuidance, ignores_negative
from t2i_policy.request.options import Limits
from t2i_protos.v1 import drawing_pb2, gateway_pb2, level_pb2, worker_pb2
from t2i_runtime.drawing import PLAIN, Drawing, KnownParts, drawing_violations, parse_drawing
from t2i_runtime.errors import Violation
from t2i_runtime.input_images import KnownComponents

MAX_PROMPT_CHARACTERS = 4096
MAX_REQUEST_ID_CHARACTERS = 128
MAX_GUIDANCE_SCALE = 30.0
MAX_IMAGES = 10
SEED_BITS = 52  # of seeds that the gateway draws: numbers of JSON hold them, and those of the next images
MIN_MAX_STEPS = 100  # a request may fix a schedule of up to this many steps, or twice the pool's
_FORMATS = frozenset(level_pb2.OutputFormat.values())
Violations = Iterator[Violation]


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """One valid request. `named` is whether the client chose the request id, so that a repeat can be known.

    `gives_guidance`: it says a guidance scale; else that of the model that serves it is meant.
    """

    request_id: str
    named: bool
    prompt: str
    negative_prompt: str
    seed: int
    guidance_scale: float
    output_format: level_pb2.OutputFormat.ValueType
    limits: Limits
    preview_every_steps: int
    size: ImageSize
    num_images: int = 1
    drawing: Drawing = PLAIN
    prompt_in_file: bool = False
    gives_guidance: bool = False

    @property
    def asked_guidance(self) -> AskedGuidance:
        scale = self.guidance_scale if self.gives_guidance else None
        return AskedGuidance(scale, bool(self.negative_prompt), "true_cfg_scale" in self.drawing.arguments)

    @property
    def images(self) -> "tuple[ImageRequest, ...]":
        """One request for each image, with seeds in a row: each can be drawn again alone."""
        if self.num_images == 1:
            return (self,)
        return tuple(replace(self, seed=(self.seed + index) % 2**64, num_images=1) for index in range(self.num_images))


def parse_request(
    request: gateway_pb2.GenerateRequest, spec: PoolSpec, made_id: str = "", model: str | None = None
) -> ImageRequest:
    """Check a request against the pool. `made_id` names one that brings no id; empty = it gets a random one. `model`:
    which one it demands, "" being the pool's own; None: any.

    Raises:
        RequestInvalid: names every field that is wrong and what it should be.
    """
    if model is None:
        model = _able_model(request.drawing, spec)
    known = _known_parts(spec.model_called(model or "")) if request.HasField("drawing") else None  # most say nothing
    violations = [
        *_text_violations(request, spec),
        *_size_violations(request, spec),
        *_number_violations(request, spec, model),
        *(drawing_violations(request.drawing, known) if known is not None else ()),
    ]
    if violations:
        raise RequestInvalid(violations)
    drawing = parse_drawing(request.drawing, known) if known is not None else PLAIN
    given_scale = request.HasField("guidance_scale")
    return ImageRequest(
        request_id=request.request_id or made_id or uuid.uuid4().hex,
        named=bool(request.request_id),
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        seed=request.seed if request.HasField("seed") else secrets.randbits(SEED_BITS),
        guidance_scale=request.guidance_scale if given_scale else spec.model.guidance_scale,
        output_format=request.output_format or level_pb2.OUTPUT_FORMAT_PNG,
        limits=_limits(request, spec, drawing, model),
        preview_every_steps=request.preview_every_steps,
        size=ImageSize(request.width, request.height) if request.width else spec.model.default_size,
        num_images=request.num_images or 1,
        drawing=drawing,
        prompt_in_file=request.prompt_in_file if request.HasField("prompt_in_file") else spec.provenance.prompt,
        gives_guidance=given_scale,
    )


def _known_parts(model: ModelPart) -> KnownParts:
    controls, ip_adapters = map(model.component_scales, ("ControlNet", "IPAdapter"))
    return KnownParts(model.adapter_scales, KnownComponents(controls, ip_adapters))


def _able_model(drawing: drawing_pb2.Drawing, spec: PoolSpec) -> str | None:
    """In a pool of several models, the first that has the adapters and components which are named; None: none is."""
    adapters = {use.name for use in drawing.adapters}
    components = {use.component for use in (*drawing.images.control_images, *drawing.images.ip_adapter_images)}
    if not spec.models or not (adapters or components):
        return None
    able = (
        name
        for name in ("", *spec.models)
        if adapters <= set(spec.model_called(name).adapter_scales)
        and components <= {one.name for one in spec.model_called(name).components}
    )
    return next(able, "")


def most_steps(spec: PoolSpec) -> int:
    """The longest schedule that a request may fix."""
    return max(MIN_MAX_STEPS, 2 * spec.model.num_inference_steps)


def steps_violations(steps: int, spec: PoolSpec) -> Violations:
    most = most_steps(spec)
    if not 1 <= steps <= most:
        yield Violation("num_inference_steps", f"must be from 1 to {most}, got {steps}")


def check_images(request: ImageRequest, model: worker_pb2.WorkerDescription | None) -> None:
    """Refuse images that no worker can use, before the request waits for one.

    Raises:
        RequestInvalid: names the fields and what the model takes instead.
    """
    if model is None or not request.drawing.images:
        return
    takes = ", ".join(f"drawing.images.{name}" for name in model.image_inputs)
    text = f"the pool's model cannot draw from it; it takes {takes or 'text only'}"
    wrong = sorted(request.drawing.images.used - set(model.image_inputs))
    if wrong:
        raise RequestInvalid([Violation(f"drawing.images.{name}", text) for name in wrong])


def check_negative_prompt(request: ImageRequest, scales: Mapping[str, float], own: str) -> None:
    """Refuse one that the model which must draw it would ignore. `scales`: each model's own; `own` names the pool's.

    Raises:
        RequestInvalid: says why, and what to do.
    """
    if not ignores_negative(request.limits, request.asked_guidance, scales):
        return
    why = f"{request.limits.model} would ignore it, as it draws without guidance"
    advice = f"leave it out, ask for {own}, leave model out, or set guidance_scale above 1, which nobody measured"
    raise RequestInvalid([Violation("negative_prompt", f"{why}: {advice}")])


def _limits(request: gateway_pb2.GenerateRequest, spec: PoolSpec, drawing: Drawing, model: str | None) -> Limits:
    """A request can raise the pool's quality floor, not lower it."""
    floor = max(spec.slo.min_quality_percent, request.min_quality_percent)
    return Limits(
        max_loss=1 - floor / 100,
        max_skipped_steps=request.max_skipped_steps if request.HasField("max_skipped_steps") else None,
        exact=request.exact,
        fixed_steps=request.num_inference_steps if request.HasField("num_inference_steps") else None,
        measured=drawing.is_measured,
        model=model,
    )


def _text_violations(request: gateway_pb2.GenerateRequest, spec: PoolSpec) -> Violations:
    if not request.prompt.strip():
        yield Violation("prompt", "must not be empty")
    for name in ("prompt", "negative_prompt"):
        text = getattr(request, name)
        if len(text) > MAX_PROMPT_CHARACTERS:
            yield Violation(name, f"must be at most {MAX_PROMPT_CHARACTERS} characters, got {len(text)}")
        if "\0" in text:
            yield Violation(name, "must not contain NUL characters")
    if request.prompt_in_file and not spec.provenance.metadata:
        yield Violation("prompt_in_file", "this pool's files hold no metadata (spec.provenance.metadata); leave it out")
    if len(request.request_id) > MAX_REQUEST_ID_CHARACTERS or not request.request_id.isprintable():
        yield Violation("request_id", f"must be at most {MAX_REQUEST_ID_CHARACTERS} printable characters")


def _size_violations(request: gateway_pb2.GenerateRequest, spec: PoolSpec) -> Violations:
    served = f"this pool makes images of {spec.model.sizes_served} pixels"
    if bool(request.width) != bool(request.height):
        missing = "height" if request.width else "width"
        yield Violation(missing, f"give width and height, or neither; {served}")
    elif request.width and not spec.model.serves(request.width, request.height):
        yield Violation("width", f"{served}; ask for one of these instead of {request.width}x{request.height}")


def _number_violations(request: gateway_pb2.GenerateRequest, spec: PoolSpec, model: str | None) -> Violations:
    if request.output_format not in _FORMATS:
        yield Violation("output_format", "must be PNG, JPEG or WEBP")
    if request.min_quality_percent > 100:
        yield Violation("min_quality_percent", f"must be from 0 to 100, got {request.min_quality_percent}")
    if request.num_images > MAX_IMAGES:
        yield Violation("num_images", f"must be from 1 to {MAX_IMAGES}, got {request.num_images}")
    if request.exact and model:
        yield Violation("model", f"{model} is not the pool's own model, which exact asks for: leave one of them out")
    if request.HasField("num_inference_steps"):
        yield from steps_violations(request.num_inference_steps, spec)
        full = spec.model.num_inference_steps
        if request.exact and request.num_inference_steps != full:
            text = f"cannot be combined with exact, which runs the pool's {full} steps: leave one of them out"
            yield Violation("num_inference_steps", text)
        if request.min_quality_percent and (model or request.num_inference_steps < full):
            text = "cannot be kept beside num_inference_steps, which fixes the schedule: leave one of them out"
            yield Violation("min_quality_percent", text)
    scale = request.guidance_scale
    if request.HasField("guidance_scale") and not (math.isfinite(scale) and 0 <= scale <= MAX_GUIDANCE_SCALE):
        yield Violation("guidance_scale", f"must be a number from 0 to {MAX_GUIDANCE_SCALE:.0f}")
