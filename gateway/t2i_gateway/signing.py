"""C2PA: each image file carries a signed claim that a model made it, bound to its bytes.

Gateways sign, because they hold the pool's Secrets and workers none. An image is signed when it is whole and was
allowed, before a byte of it is sent. What cannot be signed is not sent.
"""

import asyncio
import hashlib
import io
import json
import logging
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from t2i_api.parse import PoolError
from t2i_api.pool import Pool
from t2i_gateway.errors import ImageUnsigned
from t2i_gateway.events import PassedChunk, ToldEvent
from t2i_gateway.metrics import GatewayMetrics
from t2i_gateway.model_names import source_name
from t2i_gateway.request import ImageRequest
from t2i_protos.v1 import gateway_pb2, level_pb2, worker_pb2
from t2i_runtime.errors import CertificatesUnusable
from t2i_runtime.product import PRODUCT, VERSION
from t2i_runtime.tls.certificates import CHAIN, KEY, Certificates, Shown, follow_certificates, read_certificates
from t2i_runtime.tls.reloading import Reloaded
from t2i_runtime.tracing import within_span

if TYPE_CHECKING:
    from c2pa import Context

log = logging.getLogger(__name__)
FIELD = "provenance.c2pa.secretName"
SIGN_LIMIT_S = 10.0  # the wait for a turn included
THREADS = 2
CHUNK_BYTES = 1 << 20
MIME_TYPES = {
    level_pb2.OUTPUT_FORMAT_PNG: "image/png",
    level_pb2.OUTPUT_FORMAT_JPEG: "image/jpeg",
    level_pb2.OUTPUT_FORMAT_WEBP: "image/webp",
}
_SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype"
FROM_TEXT, FROM_IMAGES = "trainedAlgorithmicMedia", "compositeWithTrainedAlgorithmicMedia"
#: A thumbnail of our own images would cost more than everything else.
_SETTINGS = {"builder": {"thumbnail": {"enabled": False}}}
_CURVES = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
#: A png of one pixel: what the certificate is tried on.
_TRIAL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b550"
    "000000a49444154789c636000000002000148afa4710000000049454e44ae426082"
)


class ImageSigner:
    """Signs images with the certificate of a mounted Secret. Used from one event loop; the work runs in threads."""

    def __init__(self, pool: Pool, keys: Reloaded[Certificates], metrics: GatewayMetrics) -> None:
        self.keys = keys
        self._model = source_name(pool.spec.model.source)
        self._metrics = metrics
        self._threads = ThreadPoolExecutor(THREADS, "sign")
        self._context = open_context(keys.current)
        keys.on_change(self._reopen)

    def _reopen(self, keys: Certificates) -> None:
        self._context = open_context(keys)

    async def signed(self, request: ImageRequest, events: Sequence[ToldEvent], model: str) -> list[ToldEvent]:
        """The same events for the signed file. `model`: another than the pool's own that drew it, by name, or "".

        Raises:
            ImageUnsigned: it could not be signed; it may be tried again.
        """
        began_s, outcome = time.perf_counter(), "cancelled"
        told = manifest(model or self._model, FROM_IMAGES if request.drawing.images else FROM_TEXT)
        work = partial(_signed_events, self._context, told, MIME_TYPES[request.output_format], events)
        try:
            with within_span("sign image"):
                async with asyncio.timeout(SIGN_LIMIT_S):
                    found = await asyncio.get_running_loop().run_in_executor(self._threads, work)
            outcome = "signed"
        except (TimeoutError, CertificatesUnusable) as error:
            outcome = "failed"
            why = error if isinstance(error, CertificatesUnusable) else f"not within {SIGN_LIMIT_S:.0f} s"
            log.warning("%s: an image was not signed: %s", FIELD, why)
            raise ImageUnsigned("the image could not be signed; try again") from error
        finally:
            self._metrics.signing.labels(outcome).observe(time.perf_counter() - began_s)
        return found

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def open_signer(pool: Pool, folder: Path | None, metrics: GatewayMetrics) -> ImageSigner | None:
    """`folder`: where the Secret is mounted. None = the pool signs nothing.

    Raises:
        CertificatesUnusable: the Secret is missing, or nothing can be signed with it; the message names the field.
        PoolError: the library is not there.
    """
    if pool.spec.provenance.c2pa is None:
        return None
    if folder is None:
        raise CertificatesUnusable(f"{FIELD} is set: give the folder where that Secret is mounted as --c2pa-dir")
    shown = Shown(partial(metrics.count_reload, "c2pa"), metrics.certificate_end.labels("c2pa").set)
    return ImageSigner(pool, follow_certificates(FIELD, folder, read_signing_pair, shown), metrics)


def read_signing_pair(folder: Path) -> Certificates:
    """What the folder holds now; it was tried.

    Raises:
        CertificatesUnusable: a file is missing, or nothing can be signed with the pair.
        PoolError: the library is not there.
    """
    pair = read_certificates(folder, checks_peers=False)
    sign(open_context(pair), manifest("trial", FROM_TEXT), "image/png", _TRIAL)
    return pair


def manifest(model: str, source_type: str) -> dict[str, Any]:
    """What is claimed of an image: who wrote the file, which model drew it, and that a model did."""
    created = {
        "action": "c2pa.created",
        "digitalSourceType": f"{_SOURCE_TYPES}/{source_type}",
        "softwareAgent": {"name": model},
    }
    return {
        "claim_generator_info": [{"name": PRODUCT, "version": VERSION}],
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [created]}}],
    }


def open_context(pair: Certificates) -> "Context":
    """The library's, with the certificate in it.

    Raises:
        CertificatesUnusable: the key is of a kind that C2PA does not know.
        PoolError: the library is not there.
    """
    try:
        from c2pa import C2paError, C2paSignerInfo, Context, Settings, Signer
    except ImportError as error:
        text = "provenance.c2pa: install the extra `c2pa` of t2i-serving, or remove the field"
        raise PoolError(text) from error
    algorithm = _algorithm(pair.key)
    try:
        info = C2paSignerInfo(alg=algorithm.encode(), sign_cert=pair.chain, private_key=pair.key, ta_url=None)
        return Context(settings=Settings.from_dict(_SETTINGS), signer=Signer.from_info(info))
    except C2paError as error:
        raise _unusable(error) from error


def sign(context: "Context", told: dict[str, Any], mime_type: str, data: bytes) -> bytes:
    """The file with a signed manifest in it. Takes milliseconds: call it in a thread.

    Raises:
        CertificatesUnusable: nothing can be signed with the certificate.
    """
    from c2pa import Builder, C2paError

    out = io.BytesIO()
    try:
        with Builder.from_json(json.dumps(told), context) as builder:
            builder.sign(mime_type, io.BytesIO(data), out)
    except C2paError as error:
        raise _unusable(error) from error
    return out.getvalue()


def _unusable(error: Exception) -> CertificatesUnusable:
    said = " ".join(str(error).split())
    return CertificatesUnusable(
        f"the C2PA library refuses it ({said}): {CHAIN} must be valid now, with key usage digitalSignature and the "
        "extended key usage emailProtection, and the certificates that lead to its authority after it"
    )


def _algorithm(pem: bytes) -> str:
    match load_pem_private_key(pem, None):
        case ec.EllipticCurvePrivateKey(curve=curve) if curve.name in _CURVES:
            return _CURVES[curve.name]
        case rsa.RSAPrivateKey():
            return "ps256"
        case ed25519.Ed25519PrivateKey():
            return "ed25519"
    raise CertificatesUnusable(f"{KEY} must be a key for P-256, P-384, P-521, Ed25519 or RSA: C2PA knows no others")


def _signed_events(
    context: "Context", told: dict[str, Any], mime_type: str, events: Sequence[ToldEvent]
) -> list[ToldEvent]:
    """With another size, another hash and other chunks; what else there is comes first."""
    data = sign(context, told, mime_type, b"".join(one.data for one in events if isinstance(one, PassedChunk)))
    found: list[ToldEvent] = []
    for event in events:
        if isinstance(event, gateway_pb2.GenerateEvent):
            event.image.size_bytes, event.image.sha256 = len(data), hashlib.sha256(data).digest()
            found.append(event)
    return [*found, *_chunks(data)]


def _chunks(data: bytes) -> Iterator[PassedChunk]:
    for offset in range(0, len(data), CHUNK_BYTES):
        chunk = level_pb2.ImageChunk(offset=offset, data=data[offset : offset + CHUNK_BYTES])
        yield PassedChunk(worker_pb2.WorkerEvent(chunk=chunk).SerializeToString())
