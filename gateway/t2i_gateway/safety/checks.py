"""Is this prompt, or this image, allowed? The pool's endpoints say so; what they do not answer is not served.

A prompt is checked before it is embedded, so that nothing of a refused one is kept. An image is checked here and not in
the worker: gateways are few, hold the Secrets and have a way out; workers do not, and their devices need not wait.
The worker sets the latent of such an image aside. It keeps the latent only when it hears that the image was allowed.
"""

import asyncio
import base64
import json
import logging
import time
from collections.abc import Coroutine, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from t2i_api.pool import Pool
from t2i_api.safety import SafetyCheckPart
from t2i_gateway.errors import ContentRefused, DeadlineExceeded, SafetyUnchecked
from t2i_gateway.events import PassedChunk, ToldEvent
from t2i_gateway.metrics import GatewayMetrics
from t2i_gateway.request import ImageRequest
from t2i_gateway.safety.endpoint import NoAnswer, SafetyEndpoint, SafetyVerdict, tenant_hash
from t2i_gateway.safety.secret import EndpointSecret, public_secret, read_endpoint_secret
from t2i_protos.v1 import level_pb2
from t2i_runtime.errors import CertificatesUnusable
from t2i_runtime.tls.reloading import Reloaded
from t2i_runtime.tracing import within_span

log = logging.getLogger(__name__)
QUESTION_VERSION = 1
FORMATS = {
    level_pb2.OUTPUT_FORMAT_PNG: "png",
    level_pb2.OUTPUT_FORMAT_JPEG: "jpeg",
    level_pb2.OUTPUT_FORMAT_WEBP: "webp",
}


class SafetyChecks:
    """The checks of one pool; none where its document names no endpoint."""

    def __init__(
        self,
        pool: Pool,
        secrets: Mapping[str, Reloaded[EndpointSecret]],
        metrics: GatewayMetrics,
    ) -> None:
        self._pool = pool.metadata.name
        self._parts = pool.spec.safety.checks
        self._secrets = secrets
        self._metrics = metrics
        own = public_secret() if self._parts else None
        self._endpoints = {
            place: SafetyEndpoint(part, partial(_current, secrets.get(place), own))
            for place, part in self._parts.items()
        }

    @property
    def checks_images(self) -> bool:
        return "image" in self._endpoints

    async def check_prompt(self, request: ImageRequest, tenant: str, left_s: float) -> None:
        """Return if it may be drawn.

        Raises:
            ContentRefused: the endpoint refuses it.
            SafetyUnchecked: the endpoint does not answer, and the pool does not fail open.
            DeadlineExceeded: the request's time ran out.
        """
        if "prompt" in self._endpoints:
            said = {"prompt": request.prompt, "negative_prompt": request.negative_prompt}
            await self._check("prompt", json.dumps(self._question(request, tenant) | said).encode(), left_s)

    async def check_image(self, request: ImageRequest, tenant: str, events: Sequence[ToldEvent], left_s: float) -> None:
        """The same for an image, whole in these events."""
        if "image" in self._endpoints:
            data = b"".join(event.data for event in events if isinstance(event, PassedChunk))
            told = self._question(request, tenant), FORMATS[request.output_format], data
            await self._check("image", await asyncio.to_thread(_image_question, *told), left_s)

    def work(self) -> list[Coroutine[Any, Any, None]]:
        """What goes on beside the requests: Secrets are followed."""
        return [secret.run() for secret in self._secrets.values()]

    async def close(self) -> None:
        for endpoint in self._endpoints.values():
            await endpoint.close()

    def _question(self, request: ImageRequest, tenant: str) -> dict[str, Any]:
        return {
            "version": QUESTION_VERSION,
            "pool": self._pool,
            "tenant": tenant_hash(self._pool, tenant),
            "request_id": request.request_id,
        }

    async def _check(self, place: str, question: bytes, left_s: float) -> None:
        part, began_s = self._parts[place], time.perf_counter()
        outcome = "cancelled"
        try:
            with within_span(f"check {place}") as span:
                verdict = await self._endpoints[place].ask(question, max(0.0, min(part.timeout_s, left_s)))
                outcome = "allowed" if verdict.allowed else "refused"
                span.set_attribute("t2i.outcome", outcome)
        except NoAnswer as error:
            outcome = "failed"
            log.warning("spec.safety.%s: a check failed: %s", place, error)
            verdict = self._unchecked(place, part, left_s)
        finally:
            self._metrics.safety_checks.labels(place, outcome).inc()
            self._metrics.safety_check_duration.labels(place).observe(time.perf_counter() - began_s)
        if not verdict.allowed:
            raise ContentRefused(place, verdict.category, verdict.reason)

    @staticmethod
    def _unchecked(place: str, part: SafetyCheckPart, left_s: float) -> SafetyVerdict:
        if left_s <= part.timeout_s:
            raise DeadlineExceeded(f"the deadline passed before the {place} was checked")
        if not part.fail_open:
            raise SafetyUnchecked(f"the {place} could not be checked by the pool's content policy; try again")
        return SafetyVerdict(allowed=True)


def open_safety(pool: Pool, folders: Mapping[str, Path | None], metrics: GatewayMetrics) -> SafetyChecks:
    """`folders`: where the Secret of each check is mounted.

    Raises:
        CertificatesUnusable, TokensUnusable: a Secret is missing or unusable; the message names the field.
    """
    secrets: dict[str, Reloaded[EndpointSecret]] = {}
    for place, part in pool.spec.safety.checks.items():
        field = f"safety.{place}.secretName"
        if part.in_clear:
            log.warning("INSECURE: spec.safety.%s.url is http://: what it is asked travels in clear", place)
        if not part.secret_name:
            continue
        folder = folders.get(place)
        if folder is None:
            text = f"{field} is set: give the folder where that Secret is mounted as --safety-{place}-dir"
            raise CertificatesUnusable(text)
        secrets[place] = Reloaded(field, folder, read_endpoint_secret, partial(metrics.count_reload, f"safety-{place}"))
    return SafetyChecks(pool, secrets, metrics)


def _image_question(question: dict[str, Any], image_format: str, data: bytes) -> bytes:
    """Megabytes, so not on the event loop."""
    image = {"format": image_format, "data": base64.b64encode(data).decode()}
    return json.dumps(question | {"image": image}).encode()


def _current(followed: Reloaded[EndpointSecret] | None, own: EndpointSecret | None) -> EndpointSecret:
    found = own if followed is None else followed.current
    assert found is not None, "there is one where anything is checked"  # noqa: S101
    return found
