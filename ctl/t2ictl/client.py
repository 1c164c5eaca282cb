"""Calls to a gateway: a request to its checked images."""

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from t2i_protos.v1 import gateway_pb2, gateway_pb2_grpc, level_pb2
from t2ictl.credentials import Proof
from t2ictl.errors import CallFailed

NOBODY = Proof()
Progress = Callable[[gateway_pb2.GenerateEvent], None]
FORMATS = {"png": "OUTPUT_FORMAT_PNG", "jpg": "OUTPUT_FORMAT_JPEG", "jpeg": "OUTPUT_FORMAT_JPEG",
           "webp": "OUTPUT_FORMAT_WEBP"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Generated:
    """One image with what was said about it."""

    data: bytes
    accepted: gateway_pb2.Accepted
    done: gateway_pb2.Done


@dataclass(slots=True)
class _Arriving:
    """What has come of one image."""

    data: bytearray = field(default_factory=bytearray)
    info: level_pb2.ImageInfo | None = None
    accepted: gateway_pb2.Accepted = field(default_factory=gateway_pb2.Accepted)
    done: gateway_pb2.Done | None = None

    def take_in(self, event: gateway_pb2.GenerateEvent) -> None:
        match event.WhichOneof("event"):
            case "accepted":
                self.accepted = event.accepted
            case "image":
                self.info = event.image
            case "chunk":
                self.data += event.chunk.data
            case "done":
                self.done = event.done

    def whole(self) -> Generated:
        """The image. Raises CallFailed if it is not all here."""
        if self.done is None or self.info is None or hashlib.sha256(self.data).digest() != self.info.sha256:
            raise CallFailed("DATA_LOSS", "the image did not arrive whole; try again")
        return Generated(bytes(self.data), self.accepted, self.done)


class GatewayClient:
    """A gateway at an address."""

    def __init__(self, channel: grpc.aio.Channel, address: str, proof: Proof) -> None:
        self._stub = gateway_pb2_grpc.TextToImageStub(channel)
        self._address = address
        self._proof = proof
        self._metadata = proof.metadata

    async def generate(
        self, request: gateway_pb2.GenerateRequest, limit_s: float, progress: Progress = lambda _event: None
    ) -> Generated:
        """As `generate_all`, of a request for one image."""
        (image,) = await self.generate_all(request, limit_s, progress)
        return image

    async def generate_all(
        self, request: gateway_pb2.GenerateRequest, limit_s: float, progress: Progress = lambda _event: None
    ) -> list[Generated]:
        """Send a request and collect its images, by their index.

        Raises:
            CallFailed: an error status, or bytes that do not match their checksum.
        """
        images = [_Arriving() for _ in range(max(1, request.num_images))]
        try:
            async for event in self._stub.Generate(request, timeout=limit_s, metadata=self._metadata):
                progress(event)
                images[event.image_index].take_in(event)
        except grpc.aio.AioRpcError as error:
            raise self._explained(error) from error
        return [image.whole() for image in images]

    async def explain(self, request: gateway_pb2.GenerateRequest, limit_s: float) -> gateway_pb2.ExplainResponse:
        """What would happen to a request now.

        Raises:
            CallFailed: an error status.
        """
        try:
            response: gateway_pb2.ExplainResponse = await self._stub.Explain(
                gateway_pb2.ExplainRequest(request=request), timeout=limit_s, metadata=self._metadata
            )
        except grpc.aio.AioRpcError as error:
            raise self._explained(error) from error
        return response

    def _explained(self, error: grpc.aio.AioRpcError) -> CallFailed:
        code, details = error.code().name, error.details() or ""
        said = details.lower()
        if "handshake" in said or "certificate" in said or "verification" in said:
            details = f"TLS with {self._address} failed: check --ca, --cert, --key and --server-name ({details})"
        elif "socket closed" in said and not self._proof.tls:
            details = f"the gateway at {self._address} closed the connection: if it wants TLS, give --ca or --tls"
        elif "failed to connect" in said:
            details = f"no gateway at {self._address}; start one with `t2ictl local up`, or give --address"
        elif "resolv" in said or "resolution" in said:
            details = f"{self._address} leads nowhere: give --address as HOST:PORT, without http://"
        elif details == "Deadline Exceeded":  # gRPC's own word, not the gateway's
            details = "no answer in time; --timeout-s gives it more"
        return CallFailed(code, details, _retry_after_s(error))


def _retry_after_s(error: grpc.aio.AioRpcError) -> float | None:
    """What google.rpc.RetryInfo says; None where there is none, or it cannot be read."""
    try:
        status = rpc_status.from_call(error)
    except (ValueError, DecodeError):  # details of another code or message than the call's, or no details at all
        return None
    for packed in status.details if status is not None else ():
        retry = error_details_pb2.RetryInfo()
        if packed.Unpack(retry):
            return float(retry.retry_delay.ToMilliseconds()) / 1e3
    return None


@asynccontextmanager
async def connect(address: str, proof: Proof = NOBODY) -> AsyncIterator[GatewayClient]:
    """A client for the time of the block."""
    async with proof.open_channel(address) as channel:
        yield GatewayClient(channel, address, proof)
