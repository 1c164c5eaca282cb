"""The intake of a gateway with a playground: it notes how every image ends, whichever door it came by."""

import asyncio
from contextlib import aclosing

from t2i_api.pool import Pool
from t2i_gateway.director import Director
from t2i_gateway.errors import ContentRefused, GatewayError, ModelUnknown, RequestIdReused, RequestInvalid
from t2i_gateway.events import Events, PassedChunk, is_done
from t2i_gateway.intake import Intake
from t2i_gateway.metrics import GatewayMetrics
from t2i_gateway.playground.recent import RecentOutcome, RecentOutcomes
from t2i_protos.v1 import gateway_pb2
from t2i_runtime.level_messages import to_level


class WatchedIntake(Intake):
    """An intake that notes outcomes."""

    def __init__(self, director: Director, pool: Pool, metrics: GatewayMetrics) -> None:
        super().__init__(director, pool, metrics)
        self.recent = RecentOutcomes()
        self._clock = asyncio.get_running_loop().time

    async def generate(
        self, message: gateway_pb2.GenerateRequest, tenant: str, left_s: float | None, made_id: str = ""
    ) -> Events:
        quality: dict[int, float | None] = {}  # of each image, as it was promised
        try:
            async with aclosing(super().generate(message, tenant, left_s, made_id)) as events:
                async for event in events:
                    if is_done(event) and not event.done.replayed:
                        self._note(event.done, quality.get(event.image_index))
                    elif not isinstance(event, PassedChunk) and event.HasField("accepted"):
                        quality[event.image_index] = _promised(event.accepted.decision)
                    yield event
        except (RequestInvalid, ModelUnknown, RequestIdReused, ContentRefused):
            raise  # what a client asks for says nothing of the pool
        except GatewayError:
            self.recent.add(RecentOutcome(self._clock(), None))
            raise

    def _note(self, done: gateway_pb2.Done, quality_percent: float | None) -> None:
        level, took_s = to_level(done.served), done.timings.total_ms / 1e3
        self.recent.add(RecentOutcome(self._clock(), level, took_s, quality_percent))


def _promised(decision: gateway_pb2.Decision) -> float | None:
    return decision.expected_quality_percent if decision.HasField("expected_quality_percent") else None
