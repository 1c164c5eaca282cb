"""Which images are audited, and where they wait for it: in memory, few, and not for long.

A request pays a random draw and, when it is taken, the references to its image's chunks. It waits for nothing.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from t2i_gateway.context import RequestContext
from t2i_gateway.events import PassedChunk, ToldEvent
from t2i_gateway.metrics import GatewayMetrics
from t2i_policy.request.audit_choice import AuditPromise, audit_promise
from t2i_policy.request.decide import Rules
from t2i_protos.v1 import worker_pb2
from t2i_runtime.level_messages import to_level

MAX_SAMPLES = 32
MAX_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class AuditSample:
    """An image that was sent, as the worker drew it. `taken_s` is of the event loop's clock."""

    context: RequestContext
    promise: AuditPromise
    chunks: tuple[PassedChunk, ...]
    taken_s: float

    @property
    def size_bytes(self) -> int:
        return sum(len(chunk.wire) for chunk in self.chunks)

    def image(self) -> bytes:
        """The encoded image, megabytes: not for the event loop."""
        return b"".join(chunk.data for chunk in self.chunks)


class AuditSamples:
    """What waits to be audited. The oldest goes when there is no room. `share` of images is taken: 0 = none.

    Used from one event loop.
    """

    def __init__(self, share: float, metrics: GatewayMetrics, draw: Callable[[], float] = random.random) -> None:
        self.share = share
        self._metrics = metrics
        self._draw = draw
        self._waiting: deque[AuditSample] = deque()
        self._bytes = 0
        self._some = asyncio.Event()
        self._clock = asyncio.get_running_loop().time

    def watch(self, context: RequestContext, rules: Rules) -> "WatchedImage":
        """To hear the events of a request; most are not taken."""
        taken = self.share > 0 and self._draw() < self.share
        promise = audit_promise(context.decided, context.request.limits, rules) if taken else None
        return WatchedImage(self, context, promise)

    def keep(self, context: RequestContext, promise: AuditPromise, chunks: tuple[PassedChunk, ...]) -> None:
        """One more; older ones may have to go."""
        sample = AuditSample(context, promise, chunks, self._clock())
        if sample.size_bytes > MAX_BYTES:
            self._metrics.audits.labels("displaced").inc()
            return
        self._waiting.append(sample)
        self._bytes += sample.size_bytes
        while len(self._waiting) > MAX_SAMPLES or self._bytes > MAX_BYTES:
            self._bytes -= self._waiting.popleft().size_bytes
            self._metrics.audits.labels("displaced").inc()
        self._show()

    async def next(self) -> AuditSample:
        """The one that waits for longest; wait for one."""
        while not self._waiting:
            await self._some.wait()
        sample = self._waiting.popleft()
        self._bytes -= sample.size_bytes
        self._show()
        return sample

    def _show(self) -> None:
        self._metrics.audit_samples.set(len(self._waiting))
        if self._waiting:
            self._some.set()
        else:
            self._some.clear()


class WatchedImage:
    """One request as it is drawn. Without a promise it is not taken, and nothing is kept."""

    def __init__(self, samples: AuditSamples, context: RequestContext, promise: AuditPromise | None) -> None:
        self._samples = samples
        self._context = context
        self._promise = promise
        self._chunks: list[PassedChunk] = []

    def begin(self) -> None:
        """At a worker; maybe anew."""
        self._chunks.clear()

    def take_in(self, event: ToldEvent) -> None:
        if self._promise is not None and isinstance(event, PassedChunk):
            self._chunks.append(event)

    def sent(self, finished: worker_pb2.Finished | None) -> None:
        """The client has it whole. One that ran at another level than decided tells nothing of the promise."""
        if self._promise is None or finished is None or not self._chunks:
            return
        if to_level(finished.served) == self._promise.level:
            self._samples.keep(self._context, self._promise, tuple(self._chunks))
