"""The pool's embedder as requests use it: loaded at the start, or fetched from a hub while requests are served.

Repeated prompts come from a small cache, each tenant from its own part: how fast an answer comes must not tell that
another has asked the same. Trouble means no neighbour, never a failed request: until the embedder is here, images are
made at full steps, or by shorter schedules.
"""

import asyncio
import logging
import re
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from t2i_gateway.metrics import GatewayMetrics
from t2i_policy.backoff import Backoff
from t2i_sources.embedder import ONNX_ERRORS, Embedder, Embedding, load_embedder

log = logging.getLogger(__name__)
CACHED_PROMPTS = 4096
BACKOFF = Backoff(first_s=1.0, most_s=60.0)
OTHER_EMBEDDER = (
    "the profile was measured with another embedder, so its similarities mean something else: measure with this one "
    "(t2ictl profile), or set model.embedder to that one"
)
_REQUEST_ID = re.compile(r"\s*\(Request ID:[^)]*\)")


class Embeddings:
    """Of one pool. One event loop; the model runs in a thread of its own.

    Attributes:
        trouble: Why prompts are not embedded although the pool wants it; empty: they are, or it does not.

    Raises:
        EmbedderError: a source on this machine holds no usable embedder.
    """

    def __init__(self, source: str, models_dir: Path, metrics: GatewayMetrics, measured_with: str = "") -> None:
        """`source` as `load_embedder` takes it; empty: no prompt is ever embedded. `measured_with`: the digest of the
        embedder whose similarities the profile is about; empty: not known. Another one is not used.
        """
        self._source = source
        self._measured_with = measured_with
        self._models_dir = models_dir
        self._metrics = metrics
        self._embedder: Embedder | None = None
        self._known: OrderedDict[tuple[str, str], Embedding] = OrderedDict()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="embed")
        self.trouble = ""
        if source.startswith("hf://"):
            metrics.embedder_missing.set(1)
        elif source:
            self._use(load_embedder(source, models_dir))

    async def embed(self, prompt: str, tenant: str) -> Embedding | None:
        """The prompt's unit vector [D], or None if there is no embedder (yet), or the model fails on it."""
        found = await self._embed(prompt, tenant)
        if found is not None and found.unread is not None:
            self._metrics.unread_prompts.labels(found.unread).inc()
        return found

    async def _embed(self, prompt: str, tenant: str) -> Embedding | None:
        embedder = self._embedder
        if embedder is None:
            return None
        place = (tenant, prompt)
        known = self._known.get(place)
        if known is not None:
            self._known.move_to_end(place)
            return known
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._thread, embedder.embed_now, prompt)
        except (ValueError, *ONNX_ERRORS) as error:
            log.warning("a prompt could not be embedded: %s", type(error).__name__)
            self._metrics.embedding_failures.inc()
            return None
        self._known[place] = found
        if len(self._known) > CACHED_PROMPTS:
            self._known.popitem(last=False)
        return found

    async def run(self) -> None:
        """Fetch what is not on this machine, trying again with growing pauses; ends when it is here."""
        pauses = BACKOFF.pauses()
        while self._source and self._embedder is None:
            try:
                self._use(await _in_daemon(load_embedder, self._source, self._models_dir))
            except Exception as error:  # noqa: BLE001 - a hub's client and its libraries fail in many ways, and none may end us
                self.trouble = f"{_told(error)}; it is tried again"
                log.warning("requests are served without similar prompts: %s (%s)", self.trouble, type(error).__name__)
                await asyncio.sleep(next(pauses))

    def close(self) -> None:
        """Let the thread go."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _use(self, embedder: Embedder) -> None:
        if self._measured_with not in ("", embedder.digest):
            self._source, self.trouble = "", OTHER_EMBEDDER
            self._metrics.embedder_missing.set(1)
            log.warning("requests are served without similar prompts: %s", self.trouble)
            return
        self._embedder, self.trouble = embedder, ""
        self._metrics.embedder_missing.set(0)
        log.info("prompts are embedded as %d numbers", embedder.dimension)


def _told(error: Exception) -> str:
    """In one line, without what differs from try to try: it becomes a condition."""
    first = next(iter(str(error).splitlines()), "") or type(error).__name__
    return _REQUEST_ID.sub("", first).strip()


async def _in_daemon(call: Any, *args: Any) -> Any:
    """Run a call in a thread that does not hold up the end of the process: a download can take minutes."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Any] = loop.create_future()

    def settle(result: Any, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)

    def work() -> None:
        result, failed = None, None
        try:
            result = call(*args)
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits, a library's panic too
            failed = RuntimeError(repr(error)) if not isinstance(error, Exception) else error
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, result, failed)

    threading.Thread(target=work, name="fetch", daemon=True).start()
    return await done
