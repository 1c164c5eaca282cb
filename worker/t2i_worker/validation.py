"""A request message becomes a `Job`: every field is checked once, and all violations are reported together.

The gateway checks the same fields for its clients. A worker checks them again, because anyone may call its port.
"""

import math
import time
from collections.abc import Iterator
from typing import Literal

import numpy as np

from t2i_cache.keys import LatentKey
from t2i_policy.image_size import ImageSize
from t2i_protos.v1 import level_pb2, worker_pb2
from t2i_runtime.drawing import drawing_violations, parse_drawing
from t2i_runtime.errors import Violation
from t2i_runtime.level_messages import to_level
from t2i_worker.errors import JobInvalid, OtherModel
from t2i_worker.jobs import FileNotes, ImageFormat, Job, ModelFacts, Sink, Source

MAX_PROMPT_CHARACTERS = 8192
MAX_STEPS = 1000
MAX_EMBEDDING_BYTES = 1 << 16
MAX_NAME_CHARACTERS = 2048
MAX_MODEL_CHARACTERS = 63
FORMATS: dict[level_pb2.OutputFormat.ValueType, ImageFormat] = {
    level_pb2.OUTPUT_FORMAT_UNSPECIFIED: "png",
    level_pb2.OUTPUT_FORMAT_PNG: "png",
    level_pb2.OUTPUT_FORMAT_JPEG: "jpeg",
    level_pb2.OUTPUT_FORMAT_WEBP: "webp",
}
Violations = Iterator[Violation]


def parse_request(request: worker_pb2.WorkerGenerateRequest, facts: ModelFacts) -> Job:
    """Make a job whose budget begins now.

    Raises:
        JobInvalid: names every field that is wrong.
        OtherModel: the level is of a model that this worker does not hold.
    """
    if request.level.model != facts.model:
        raise OtherModel(request.level.model[:MAX_MODEL_CHARACTERS], facts.model)
    violations = [*_violations(request, facts)]
    if violations:
        raise JobInvalid(violations)
    size = ImageSize(request.width, request.height)
    return Job(
        request_id=request.request_id,
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        seed=request.seed,
        guidance_scale=request.guidance_scale,
        level=to_level(request.level),
        image_format=FORMATS[request.output_format],
        deadline_s=time.monotonic() + request.budget_ms / 1e3 if request.budget_ms else None,
        source=_source(request),
        sink=_sink(request),
        preview_every_steps=request.preview_every_steps,
        drawing=parse_drawing(request.drawing, facts.known_parts),
        size=None if size == facts.size else size,
        file_notes=_file_notes(request),
        holds_latent=request.HasField("held_sink"),
        background=request.background,
    )


def _violations(request: worker_pb2.WorkerGenerateRequest, facts: ModelFacts) -> Violations:
    for name in ("prompt", "negative_prompt"):
        if len(getattr(request, name)) > MAX_PROMPT_CHARACTERS:
            yield Violation(name, f"must be at most {MAX_PROMPT_CHARACTERS} characters")
    if not facts.draws(ImageSize(request.width, request.height)):
        measured = ", ".join(map(str, (facts.size, *(one.size for one in facts.sizes))))
        yield Violation(
            "width", f"this worker measured {measured} pixels and makes no sizes beyond; ask for one of these"
        )
    if not (math.isfinite(request.guidance_scale) and 0 <= request.guidance_scale <= 100):
        yield Violation("guidance_scale", "must be a number from 0 to 100")
    if request.output_format not in FORMATS:
        yield Violation("output_format", "unknown format")
    yield from drawing_violations(request.drawing, facts.known_parts)
    if request.drawing.images.ByteSize() and (request.level.skipped_steps or _sink_name(request)):
        yield Violation("drawing.images", "a run from images neither starts from a latent nor leaves one")
    for name in ("pool", "model"):
        if len(getattr(request.file_notes, name)) > MAX_NAME_CHARACTERS:
            yield Violation(f"file_notes.{name}", f"must be at most {MAX_NAME_CHARACTERS} characters")
    yield from _level_violations(request.level)
    yield from _latent_violations(request)


def _level_violations(level: level_pb2.Level) -> Violations:
    if not 1 <= level.num_inference_steps <= MAX_STEPS:
        yield Violation("level.num_inference_steps", f"must be from 1 to {MAX_STEPS}")
    elif level.skipped_steps >= level.num_inference_steps:
        yield Violation("level.skipped_steps", "must be smaller than num_inference_steps")
    else:
        try:
            to_level(level)
        except ValueError as error:
            yield Violation("level", str(error))


def _latent_violations(request: worker_pb2.WorkerGenerateRequest) -> Violations:
    for name in ("source", "sink", "held_sink"):
        part = getattr(request, name)
        if request.HasField(name) and (problem := _key_problem(part.scope, part.entry_id)):
            yield Violation(name, problem)
    if (sink := _sink_name(request)) is not None:
        size = len(getattr(request, sink).embedding)
        if size % 4 or not 0 < size <= MAX_EMBEDDING_BYTES:
            yield Violation(f"{sink}.embedding", "must be float32 values, at least one")
    if request.HasField("sink") and request.HasField("held_sink"):
        yield Violation("held_sink", "give it or sink, not both")


def _key_problem(scope: str, entry_id: str) -> str | None:
    try:
        LatentKey(scope, "model", entry_id, 0)
    except ValueError as error:
        return str(error)
    return None


def _file_notes(request: worker_pb2.WorkerGenerateRequest) -> FileNotes | None:
    notes = request.file_notes
    return FileNotes(notes.pool, notes.model, notes.prompt) if request.HasField("file_notes") else None


def _source(request: worker_pb2.WorkerGenerateRequest) -> Source | None:
    if not request.HasField("source"):
        return None
    source = request.source
    return Source(source.scope, source.entry_id, source.embedder, source.same_image)


def _sink_name(request: worker_pb2.WorkerGenerateRequest) -> Literal["sink", "held_sink"] | None:
    """The field that says where the latent goes."""
    if request.HasField("held_sink"):
        return "held_sink"
    return "sink" if request.HasField("sink") else None


def _sink(request: worker_pb2.WorkerGenerateRequest) -> Sink | None:
    if (name := _sink_name(request)) is None:
        return None
    sink = getattr(request, name)
    embedding = np.frombuffer(sink.embedding, "<f4").astype(np.float32)
    return Sink(sink.scope, sink.entry_id, embedding, sink.embedder)
