"""Load from clients: requests at given instants, each followed to its end, whatever the pool does meanwhile.

The client is the product's own (`t2ictl.client`). What it adds is what callers must do themselves: a server that is
away or stops (UNAVAILABLE, CANCELLED) is answered by asking again with the same request id, elsewhere, until the
deadline. A request that was accepted and has no image in the end is *lost*; one that was refused with a reason before
it was accepted is *refused*.
"""

import asyncio
import itertools
import random
import time
import uuid
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np

from t2i_protos.v1 import gateway_pb2
from t2i_runtime.level_messages import to_level
from t2i_scenes import Scene, caption, sample_scene
from t2ictl.client import GatewayClient
from t2ictl.credentials import Proof
from t2ictl.errors import CallFailed

CHANNELS = 8  # a Service spreads connections, not requests
RETRY_PAUSE_S = 0.1
#: A gRPC server that stops answers CANCELLED to what arrives in that very moment; clients did not cancel anything here.
TRIED_AGAIN = {"UNAVAILABLE", "CANCELLED"}
OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),  # each channel its own connection
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
)


@dataclass(frozen=True, slots=True)
class Prompt:
    """What to ask for; `scene` is what the image must show."""

    text: str
    scene: Scene
    seed: int


def prompts(count: int, seed: int = 0, scenes: int = 0) -> list[Prompt]:
    """Captions of random scenes; with `scenes`, of so many of them only, in other words each time: a warm cache's."""
    draw = np.random.default_rng(seed)
    known = [sample_scene(draw) for _ in range(scenes or count)]
    chosen = [known[int(draw.integers(len(known)))] if scenes else known[number] for number in range(count)]
    return [Prompt(caption(scene, draw), scene, number) for number, scene in enumerate(chosen)]


def steady(rate_rps: float, seconds: float, seed: int = 0) -> list[float]:
    """Instants of a Poisson process."""
    draw = random.Random(seed)
    at_s, found = draw.expovariate(rate_rps), []
    while at_s < seconds:
        found.append(at_s)
        at_s += draw.expovariate(rate_rps)
    return found


@dataclass(slots=True)
class Outcome:
    """One request. Instants are seconds since the load began."""

    prompt: Prompt
    at_s: float
    ended_s: float = 0.0
    code: str = ""  # OK or the last status
    message: str = ""
    retry_after_s: float | None = None  # as the last refusal said
    accepted: bool = False
    retries: int = 0  # by the client; `moved` = by the gateway, to another worker
    cut_off: int = 0  # those of the retries that a stopping server caused with CANCELLED
    moved: int = 0
    wanted: tuple[int, int] = (0, 0)
    served: tuple[int, int] = (0, 0)  # skipped steps, schedule
    model: str = ""  # that drew it, by its name in levels
    phrase: str = ""  # the served level in words
    cost: float = 0.0  # of it, in guided steps of the denoiser
    expected_percent: float = 0.0
    image: bytes = b""

    @property
    def latency_s(self) -> float:
        """First send to last byte."""
        return self.ended_s - self.at_s

    @property
    def ok(self) -> bool:
        """An image came."""
        return self.code == "OK"

    @property
    def lost(self) -> bool:
        """Accepted, and no image."""
        return self.accepted and not self.ok

    @property
    def refused(self) -> bool:
        """Told at once that it cannot be."""
        return not self.ok and not self.accepted


@dataclass(slots=True)
class Load:
    """Clients of one gateway address. `run` may be awaited beside what a test does; `began_s` is on the clock."""

    address: str
    limit_s: float = 30.0
    exact: bool = False
    model: str = ""  # that is demanded
    tries: int = 20
    tenant: str = ""
    began_s: float = 0.0
    outcomes: list[Outcome] = field(default_factory=list)

    def now_s(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self.began_s

    async def run(self, instants: Sequence[float], asked: Sequence[Prompt]) -> list[Outcome]:
        """Send each prompt at its instant, wait for all."""
        channels = [grpc.aio.insecure_channel(self.address, options=OPTIONS) for _ in range(CHANNELS)]
        clients = itertools.cycle([GatewayClient(channel, self.address, Proof(self.tenant)) for channel in channels])
        try:
            return await self.send_all(instants, asked, lambda outcome: self._one(outcome, clients))
        finally:
            for channel in channels:
                await channel.close()

    async def send_all(
        self, instants: Sequence[float], asked: Sequence[Prompt], send: Callable[[Outcome], Coroutine[Any, Any, None]]
    ) -> list[Outcome]:
        """Each prompt at its instant, by `send`, which fills in the outcome."""
        self.began_s = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for at_s, prompt in zip(instants, asked, strict=False):
                await asyncio.sleep(max(0.0, at_s - self.now_s()))
                outcome = Outcome(prompt, self.now_s())
                self.outcomes.append(outcome)
                group.create_task(send(outcome))
        return self.outcomes

    async def _one(self, outcome: Outcome, clients: "itertools.cycle[GatewayClient]") -> None:
        request = gateway_pb2.GenerateRequest(
            prompt=outcome.prompt.text, seed=outcome.prompt.seed, request_id=str(uuid.uuid4()), model=self.model
        )
        request.exact = self.exact

        def hear(event: gateway_pb2.GenerateEvent) -> None:
            outcome.accepted |= event.HasField("accepted")

        for _ in range(self.tries):
            left_s = self.limit_s - (self.now_s() - outcome.at_s)
            if left_s <= 0:
                break
            try:
                answer = await next(clients).generate(request, left_s, hear)
            except CallFailed as error:
                outcome.code, outcome.message = error.code, str(error)
                outcome.retry_after_s = error.retry_after_s
                if error.code not in TRIED_AGAIN:
                    break
                outcome.retries += 1
                outcome.cut_off += error.code == "CANCELLED"
                await asyncio.sleep(RETRY_PAUSE_S)
            else:
                decision = answer.accepted.decision
                outcome.code, outcome.moved, outcome.image = "OK", answer.done.retries, answer.data
                outcome.wanted = (decision.wanted.skipped_steps, decision.wanted.num_inference_steps)
                outcome.served = (answer.done.served.skipped_steps, answer.done.served.num_inference_steps)
                level = to_level(answer.done.served)
                outcome.model, outcome.phrase, outcome.cost = level.model, level.phrase, level.cost
                outcome.expected_percent = decision.expected_quality_percent
                break
        outcome.ended_s = self.now_s()


def summary(outcomes: Sequence[Outcome], slo_s: float) -> dict[str, object]:
    """The numbers of every scenario."""
    done = [one for one in outcomes if one.ok]
    late = sorted(one.latency_s for one in done)
    return {
        "sent": len(outcomes),
        "served": len(done),
        "lost": sum(one.lost for one in outcomes),
        "refused": sum(one.refused for one in outcomes),
        "retried": sum(one.retries > 0 for one in outcomes),
        "moved": sum(one.moved for one in outcomes),
        "cut_off": sum(one.cut_off for one in outcomes),
        "p50_s": quantile(late, 0.5),
        "p99_s": quantile(late, 0.99),
        "max_s": quantile(late, 1.0),
        "over_slo": sum(one.latency_s > slo_s for one in done),
        "codes": dict(Counter(one.code for one in outcomes)),
    }


def quantile(ordered: Sequence[float], share: float) -> float | None:
    """Of sorted values, the nearest rank; None without any."""
    if not ordered:
        return None
    return round(ordered[min(len(ordered) - 1, max(0, round(share * len(ordered)) - 1))], 3)


def recovery_s(outcomes: Sequence[Outcome], fault_s: float, usual_s: float) -> float:
    """From a fault to the end of the last request that failed, was tried again or moved, or took longer than usual; of
    those sent after it, or in flight then. 0 = nobody noticed."""
    hurt = [
        one.ended_s
        for one in outcomes
        if one.ended_s >= fault_s and (not one.ok or one.retries or one.moved or one.latency_s > usual_s)
    ]
    return round(max((ended_s - fault_s for ended_s in hurt), default=0.0), 2)


def levels_of(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """Images by the level that really ran."""
    return dict(Counter(one.phrase for one in outcomes if one.ok))
