"""Load that the page asks for: requests of one tenant of its own, sent by one task of the gateway.

A browser opens six connections to a host at most, so it cannot load a pool itself. The task sends at random moments
(Poisson), through the same intake as every door. It ends by itself when nobody has renewed it for RENEW_WITHIN_S.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from t2i_gateway.intake import Intake, counted
from t2i_gateway.metrics import GatewayMetrics
from t2i_gateway.spans import door_span
from t2i_gateway.status import SHOWN_ERRORS
from t2i_protos.v1 import gateway_pb2

log = logging.getLogger(__name__)
TENANT = "playground load"  # no caller can have a name with a space
TENANT_WEIGHT = 0.1
METHOD = "PlaygroundLoad"  # beside gRPC's methods in the metric of requests
RENEW_WITHIN_S = 5.0
MAX_IN_FLIGHT = 256
LOOK_EVERY_S = 0.25


@dataclass(frozen=True, slots=True)
class WantedLoad:
    """So many requests a second of these prompts, until `until_s` of the event loop's clock."""

    rps: float
    prompts: Sequence[str]
    until_s: float


@dataclass(frozen=True, slots=True)
class SentLoad:
    """Since the gateway began. `failed`: by its own fault. `held_back`: not sent, as MAX_IN_FLIGHT were under way."""

    drawn: int = 0
    refused: int = 0
    failed: int = 0
    held_back: int = 0


class SyntheticLoad:
    """One for a gateway. Used from one event loop."""

    def __init__(
        self, intake: Intake, metrics: GatewayMetrics, slo_s: float, clock: Callable[[], float] | None = None
    ) -> None:
        self._intake = intake
        self._metrics = metrics
        self._slo_s = slo_s
        self._clock = clock or asyncio.get_running_loop().time
        self._wanted = WantedLoad(0.0, (), 0.0)
        self._asked = asyncio.Event()
        self.sent = SentLoad()
        self.in_flight = 0

    def ask(self, rps: float, prompts: Sequence[str]) -> None:
        """Want this load for RENEW_WITHIN_S, in place of what was wanted before."""
        self._wanted = WantedLoad(rps, prompts, self._clock() + RENEW_WITHIN_S)
        self._asked.set()

    @property
    def rps(self) -> float:
        """What is wanted now, requests/s."""
        wanted = self._wanted
        return wanted.rps if wanted.prompts and self._clock() < wanted.until_s else 0.0

    async def run(self) -> None:
        """Send what is wanted, until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._asked.wait()
                while (rps := self.rps) > 0:
                    await self._send_next(group, rps)
                self._asked.clear()

    async def _send_next(self, group: asyncio.TaskGroup, rps: float) -> None:
        """One request after a random pause. A long pause is drawn anew after a look: by chance that is the same."""
        pause_s = random.expovariate(rps)
        await asyncio.sleep(min(pause_s, LOOK_EVERY_S))
        if pause_s > LOOK_EVERY_S or self.rps <= 0:
            return
        if self.in_flight >= MAX_IN_FLIGHT:
            self.sent = replace(self.sent, held_back=self.sent.held_back + 1)
            return
        self.in_flight += 1
        group.create_task(self._draw(random.choice(self._wanted.prompts)))

    async def _draw(self, prompt: str) -> None:
        message = gateway_pb2.GenerateRequest(prompt=prompt)
        try:
            with (
                door_span(METHOD, (), {}),
                counted(self._metrics, METHOD),
                self._intake.held(message.ByteSize()),
            ):
                async with aclosing(self._intake.generate(message, TENANT, self._slo_s)) as events:
                    async for _ in events:
                        pass
            self.sent = replace(self.sent, drawn=self.sent.drawn + 1)
        except SHOWN_ERRORS:
            self.sent = replace(self.sent, refused=self.sent.refused + 1)
        except Exception as error:  # noqa: BLE001 - a fault in one request must not end the gateway
            self.sent = replace(self.sent, failed=self.sent.failed + 1)
            log.error("a request of the playground's load failed: %s", type(error).__name__)  # noqa: TRY400 - no prompt
        finally:
            self.in_flight -= 1
