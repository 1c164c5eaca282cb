"""What a drawn image becomes on the wire: base64 as its bytes come in, and the JSON around it.

Images are large, so an answer is a list of pieces. None is ever joined, and none is made twice. An image that is kept
for a link stays the bytes that it came in.
"""

import base64
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from t2i_gateway.doors.fields import FORMATS, ImageBody
from t2i_gateway.events import PassedChunk, ToldEvent
from t2i_gateway.messages import steps_run
from t2i_policy.level import COORDINATES
from t2i_protos.v1 import gateway_pb2, level_pb2
from t2i_runtime.level_messages import to_level

Pieces = list[bytes]
_NAMES = {value: name for name, value in FORMATS.items()}


def format_name(value: level_pb2.OutputFormat.ValueType) -> str:
    return _NAMES.get(value, "png")


@dataclass(slots=True)
class AnsweredImage:
    """One image of a request, as its events come in. `as_file`: it is not sent, so it need not become base64."""

    as_file: bool = False
    accepted: gateway_pb2.Accepted = field(default_factory=gateway_pb2.Accepted)
    done: gateway_pb2.Done = field(default_factory=gateway_pb2.Done)
    info: level_pb2.ImageInfo = field(default_factory=level_pb2.ImageInfo)
    num_previews: int = 0
    _pieces: Pieces = field(default_factory=list)
    _rest: bytes = b""

    def take_in(self, event: ToldEvent) -> int:
        """Gives how many bytes more it holds."""
        if isinstance(event, PassedChunk):
            return self._take_part(event.data)
        match event.WhichOneof("event"):
            case "accepted":
                self.accepted = event.accepted
            case "image":
                self.info = event.image
            case "done":
                self.done = event.done
        return 0

    def forget(self) -> None:
        """The image; what is known of it stays."""
        self._pieces, self._rest = [], b""

    def _take_part(self, part: bytes) -> int:
        data = self._rest + part
        whole = len(data) if self.as_file else len(data) - len(data) % 3
        piece = data[:whole] if self.as_file else base64.b64encode(memoryview(data)[:whole])
        self._pieces.append(piece)
        self._rest = data[whole:]
        return len(piece)

    @property
    def base64(self) -> Pieces:
        return [*self._pieces, base64.b64encode(self._rest)]

    @property
    def file(self) -> bytes:
        """The image file, of one `as_file`."""
        return b"".join(self._pieces)

    @property
    def size(self) -> str:
        return f"{self.info.width}x{self.info.height}"

    def story(self, index: int) -> dict[str, Any]:
        """What was decided and what ran: the part of an answer that OpenAI's API does not have."""
        decision, done, timings = self.accepted.decision, self.done, self.done.timings
        return {
            "index": index,
            "wanted_level": level_body(decision.wanted),
            "served_level": level_body(done.served),
            "reason": done.reason,
            "message": decision.message,
            "expected_quality_percent": _quality(decision),
            "seed": done.seed,
            "timings_ms": {
                "queue": round(timings.queue_ms, 1),
                "wait": round(timings.wait_ms, 1),
                "denoise": round(timings.denoise_ms, 1),
                "encode": round(timings.encode_ms, 1),
                "total": round(timings.total_ms, 1),
            },
            "retries": done.retries,
            "replayed": done.replayed,
            "reproduction": _reproduction(done),
            "prompt_cuts": [_cut(cut) for cut in done.prompt_cuts],
        }


def _quality(decision: gateway_pb2.Decision) -> float | None:
    return round(decision.expected_quality_percent, 2) if decision.HasField("expected_quality_percent") else None


def level_body(message: level_pb2.Level) -> dict[str, Any]:
    level = to_level(message)
    told = {"phrase": level.phrase} | {name: getattr(level, name) for name in COORDINATES}
    return {name: value for name, value in told.items() if value or name == "skipped_steps"}


def _reproduction(done: gateway_pb2.Done) -> dict[str, Any] | None:
    """The fields of the request that draws this image again; None = none does."""
    if not done.HasField("reproduction"):
        return None
    told = done.reproduction
    how = {"exact": True} if told.exact else {"num_inference_steps": told.num_inference_steps}
    return {"seed": done.seed, **how, **({"model": told.model} if told.model else {})}


def _cut(cut: level_pb2.PromptCut) -> dict[str, Any]:
    return {
        "encoder": cut.encoder,
        "kept_tokens": cut.kept_tokens,
        "total_tokens": cut.total_tokens,
        "kept_characters": cut.kept_characters,
        "negative": cut.negative,
    }


def usage(images: Iterable[AnsweredImage]) -> dict[str, Any]:
    """Nobody counts tokens of images here, so those are 0; steps say what the images cost."""
    drawn = list(images)
    steps = sum(steps_run(image.done) for image in drawn)
    details = {"text_tokens": 0, "image_tokens": 0}
    tokens = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0, "input_tokens_details": details}
    return {**tokens, "images": len(drawn), "steps": steps}


def quality_of(body: ImageBody) -> str:
    return body.quality or "auto"


def full_answer(
    body: ImageBody, request_id: str, images: list[AnsweredImage], links: list[str] | None = None
) -> Pieces:
    """The whole answer to a request without stream: with links to its images, or with the images."""
    tail = {
        "background": "opaque",
        "output_format": body.format_name,
        "quality": quality_of(body),
        "size": images[0].size,
        "usage": usage(images),
        "t2i": {"request_id": request_id, "images": [image.story(index) for index, image in enumerate(images)]},
    }
    pieces: Pieces = [f'{{"created":{int(time.time())},"data":['.encode()]
    if links is not None:
        return [*pieces, b",".join(_compact({"url": link}) for link in links), b"],", _compact(tail)[1:]]
    for index, image in enumerate(images):
        pieces += [b',{"b64_json":"' if index else b'{"b64_json":"', *image.base64, b'"}']
    return [*pieces, b"],", _compact(tail)[1:]]


def partial_event(event: str, body: ImageBody, size: str, preview: level_pb2.Preview, place: dict[str, int]) -> Pieces:
    """One preview. Its file is small and has a format of its own; the size is that of the image that will come.

    `place` tells which of the previews it is, and of which image.
    """
    told = {
        "type": f"{event}.partial_image",
        **place,
        "created_at": int(time.time()),
        "size": size,
        "quality": quality_of(body),
        "background": "opaque",
        "output_format": format_name(preview.format),
        "t2i": {"step": preview.step},
    }
    return _event(told, [base64.b64encode(preview.data)])


def completed_event(event: str, body: ImageBody, request_id: str, image: AnsweredImage, image_index: int) -> Pieces:
    """One image that is done."""
    told = {
        "type": f"{event}.completed",
        "image_index": image_index,
        "created_at": int(time.time()),
        "size": image.size,
        "quality": quality_of(body),
        "background": "opaque",
        "output_format": body.format_name,
        "usage": usage([image]),
        "t2i": {"request_id": request_id, "images": [image.story(image_index)]},
    }
    return _event(told, image.base64)


def error_event(body: dict[str, Any]) -> Pieces:
    """An error after the stream began."""
    return [b"event: error\ndata: ", _compact({"type": "error", **body}), b"\n\n"]


def _event(told: dict[str, Any], encoded: Pieces) -> Pieces:
    """A server-sent event: its fields, and the image as b64_json."""
    head = f'event: {told["type"]}\ndata: {{"b64_json":"'.encode()
    return [head, *encoded, b'",', _compact(told)[1:], b"\n\n"]


def _compact(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
