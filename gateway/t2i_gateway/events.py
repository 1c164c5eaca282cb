"""What a client is told of its request. Chunks of an image pass as the bytes that came from the worker.

The field of a chunk has the same number on both wires. So a `WorkerEvent` that holds a chunk is, byte for byte, the
`GenerateEvent` of that chunk. Megabytes are therefore neither parsed, nor copied into another message, nor written
anew.
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import TypeGuard

from t2i_protos.v1 import gateway_pb2, worker_pb2

_LENGTH_DELIMITED = 2  # protobuf's wire type of messages
_CHUNK_TAG = (worker_pb2.WorkerEvent.CHUNK_FIELD_NUMBER << 3) | _LENGTH_DELIMITED


@dataclass(slots=True)
class PassedChunk:
    """One chunk of an image, as a worker wrote it."""

    wire: bytes
    image_index: int = 0

    @property
    def data(self) -> bytes:
        """Its part of the image file."""
        return gateway_pb2.GenerateEvent.FromString(self.wire).chunk.data


ToldEvent = gateway_pb2.GenerateEvent | PassedChunk
Events = AsyncGenerator[ToldEvent, None]  # a request's, in order


def read_worker_event(data: bytes) -> worker_pb2.WorkerEvent | PassedChunk:
    """The deserializer of a worker's stream.

    Raises:
        DecodeError: it is no event.
    """
    if data and data[0] == _CHUNK_TAG:
        return PassedChunk(data)
    return worker_pb2.WorkerEvent.FromString(data)


def write_event(event: ToldEvent) -> bytes:
    """The serializer of a client's stream."""
    if isinstance(event, gateway_pb2.GenerateEvent):
        return event.SerializeToString()
    if not event.image_index:
        return event.wire
    # Messages that follow one another are read as one: this adds the field that a worker does not know.
    return event.wire + gateway_pb2.GenerateEvent(image_index=event.image_index).SerializeToString()


def size_of(event: ToldEvent) -> int:
    """Bytes that it takes, about."""
    return len(event.wire) if isinstance(event, PassedChunk) else event.ByteSize()


def is_done(event: ToldEvent) -> TypeGuard[gateway_pb2.GenerateEvent]:
    """Whether an image ends with it."""
    return isinstance(event, gateway_pb2.GenerateEvent) and event.HasField("done")


def is_of_image(event: ToldEvent) -> bool:
    """Whether it holds a part of the finished image, or announces it."""
    return isinstance(event, PassedChunk) or event.WhichOneof("event") in ("image", "chunk")
