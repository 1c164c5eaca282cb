"""Images kept in a bucket, for requests that ask for links.

A bucket may be slow or away: keeping has a deadline, and what is kept at one time is bounded. Names are random, so who
has one link cannot find another. Who removes the images is the bucket's own lifecycle rule.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from t2i_api.parse import PoolError
from t2i_api.results import ResultsPart
from t2i_gateway.errors import ResultsNotKept
from t2i_gateway.metrics import GatewayMetrics
from t2i_runtime.errors import TokensUnusable
from t2i_runtime.tls.reloading import Reloaded
from t2i_runtime.tracing import within_span

if TYPE_CHECKING:
    from obstore.store import S3Config, S3Store

log = logging.getLogger(__name__)
FIELD = "gateway.results.secretName"
KEY_ID, KEY, SESSION = "access_key_id", "secret_access_key", "session_token"
MAX_SECRET_BYTES = 16 << 10
MAX_AT_ONCE = 16  # images
MAX_RETRIES = 3
NAME_BYTES = 24
Format = Literal["png", "jpeg", "webp"]


@dataclass(frozen=True, slots=True)
class BucketKeys:
    """What opens the bucket."""

    key_id: str
    key: str = field(repr=False)
    session: str = field(default="", repr=False)


class ResultStore:
    """Keeps images and gives links. Used from one event loop."""

    def __init__(
        self, part: ResultsPart, keys: Reloaded[BucketKeys] | None, observe: Callable[[str, float], None]
    ) -> None:
        """`observe` hears how each request's images ended, and after how many seconds."""
        self._part = part
        self._observe = observe
        self._turns = asyncio.Semaphore(MAX_AT_ONCE)
        self._bucket = _open_bucket(part, None if keys is None else keys.current)
        self.keys = keys
        if keys is not None:
            keys.on_change(self._reopen)

    def _reopen(self, keys: BucketKeys) -> None:
        self._bucket = _open_bucket(self._part, keys)

    async def keep(self, images: Sequence[bytes], image_format: Format) -> list[str]:
        """A link for each image.

        Raises:
            ResultsNotKept: they could not all be kept in time; some may be.
        """
        began_s, outcome = time.perf_counter(), "cancelled"
        try:
            with within_span("keep results", {"t2i.images": len(images)}):
                async with asyncio.timeout(self._part.timeout_s), asyncio.TaskGroup() as group:
                    tasks = [group.create_task(self._keep_one(image, image_format)) for image in images]
            outcome = "kept"
            return [task.result() for task in tasks]
        except TimeoutError as error:
            outcome = "late"
            log.warning("gateway.results: an image was not kept within %.1f s", self._part.timeout_s)
            raise ResultsNotKept("the images could not be kept in time; try again, or ask for b64_json") from error
        except ExceptionGroup as errors:
            outcome = "failed"
            # The text may hold names of images, which open them.
            log.warning("gateway.results: an image was not kept: %s", type(errors.exceptions[0]).__name__)
            raise ResultsNotKept("the images could not be kept; try again, or ask for b64_json") from None
        finally:
            self._observe(outcome, time.perf_counter() - began_s)

    async def _keep_one(self, image: bytes, image_format: Format) -> str:
        import obstore

        name = f"{self._part.prefix}{secrets.token_urlsafe(NAME_BYTES)}.{image_format}"
        async with self._turns:
            attributes = {"Content-Type": f"image/{image_format}"}
            await obstore.put_async(self._bucket, name, image, attributes=attributes, use_multipart=False)
            if self._part.public_base_url:
                return f"{self._part.public_base_url.rstrip('/')}/{name}"
            signed: str = await obstore.sign_async(
                self._bucket, "GET", name, expires_in=timedelta(seconds=self._part.link_seconds)
            )
            return signed


def open_results(part: ResultsPart | None, folder: Path | None, metrics: GatewayMetrics) -> ResultStore | None:
    """`folder`: where the Secret is mounted. None = the pool keeps no images.

    Raises:
        TokensUnusable: the Secret is missing or unusable.
        PoolError: the library is not there.
    """
    if part is None:
        return None
    keys: Reloaded[BucketKeys] | None = None
    if part.in_clear:
        log.warning("INSECURE: spec.gateway.results.endpoint is http://: images travel in clear")
    if part.secret_name:
        if folder is None:
            raise TokensUnusable(f"{FIELD} is set: give the folder where that Secret is mounted as --results-dir")
        keys = Reloaded(FIELD, folder, read_keys, partial(metrics.count_reload, "results"))
    return ResultStore(part, keys, lambda outcome, took_s: metrics.results.labels(outcome).observe(took_s))


def read_keys(folder: Path) -> BucketKeys:
    """What the folder holds now.

    Raises:
        TokensUnusable: the Secret is missing, or a key is missing or no text; the message names it.
    """
    if not any((folder / name).exists() for name in (KEY_ID, KEY)):
        raise TokensUnusable(f"{folder} is empty: create the Secret, with the keys {KEY_ID} and {KEY}")
    return BucketKeys(_text(folder / KEY_ID), _text(folder / KEY), _text(folder / SESSION, needed=False))


def _text(path: Path, needed: bool = True) -> str:
    if not needed and not path.exists():
        return ""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_SECRET_BYTES + 1).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise TokensUnusable(f"{path} cannot be read, or is no text: put this key into the Secret") from error
    if not text or len(text) > MAX_SECRET_BYTES or not text.isprintable():
        raise TokensUnusable(f"{path} must be one line of at most 16 KiB: write it anew")
    return text


def _open_bucket(part: ResultsPart, keys: BucketKeys | None) -> "S3Store":
    """Nothing is asked of the server yet."""
    try:
        from obstore.store import S3Store
    except ImportError as error:
        text = "gateway.results: install the extra `results` of t2i-serving, or remove the field"
        raise PoolError(text) from error
    config: S3Config = {"region": part.region}
    if part.endpoint:
        config["endpoint"] = part.endpoint
    if keys is not None:
        config["access_key_id"], config["secret_access_key"] = keys.key_id, keys.key
        if keys.session:
            config["session_token"] = keys.session
    limit = timedelta(seconds=part.timeout_s)
    return S3Store(
        part.bucket,
        config=config,
        client_options={"allow_http": part.in_clear, "timeout": limit, "connect_timeout": limit},
        retry_config={"max_retries": MAX_RETRIES, "retry_timeout": limit},
    )
