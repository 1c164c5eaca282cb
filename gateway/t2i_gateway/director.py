"""The director: what happens to a prompt, top to bottom (`Director.generate`).

The decisions are the policy's; this module orders them. `deciding` gathers what they see, `delivery` carries them out.
"""

import asyncio
import time
from contextlib import aclosing

from t2i_gateway.context import Arrived, RequestContext
from t2i_gateway.deciding import Deciding
from t2i_gateway.delivery import Delivery
from t2i_gateway.errors import GatewayDraining, RequestRefused
from t2i_gateway.events import Events
from t2i_gateway.messages import accepted_event, explain_response, outlook_message
from t2i_gateway.metrics import band_of
from t2i_gateway.parts import Parts
from t2i_gateway.request import ImageRequest
from t2i_gateway.several_images import merge_events
from t2i_policy.image_size import counted_steps
from t2i_policy.level import Level
from t2i_policy.request.admission import Admitted, Refused
from t2i_policy.request.explain import outlook
from t2i_policy.request.rate_limits import RateCost
from t2i_policy.request.served import estimate_s
from t2i_protos.v1 import gateway_pb2

SLOS_WITHOUT_DEADLINE = 10  # a request without a deadline gets this many SLOs


class Director:
    """Leads requests through one gateway. Used from one event loop."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._deciding = Deciding(parts)
        self._loop = asyncio.get_running_loop()
        self._active = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self.draining = False

    async def generate(self, request: ImageRequest, tenant: str, left_s: float | None) -> Events:
        """Accepted, (progress | preview)*, image, chunk+, done of each image. `left_s` None = no deadline is set.

        Raises:
            GatewayError: the request was refused, or it failed.
        """
        if self.draining:
            raise GatewayDraining("the gateway is shutting down; try another one")
        self._active += 1
        self._idle.clear()
        try:
            arrived, cost = self._arrived(left_s), RateCost()
            self._check_rate(tenant, RateCost(request.num_images))  # 1. may the tenant have more, may it be drawn
            await self._check_prompt(request, tenant, arrived)
            before: list[Level] = []  # of this request's images
            streams: list[Events] = []
            for image in request.images:  # none is drawn unless all are admitted
                began_s = time.perf_counter()
                # 2. embed, find the nearest, choose a level
                context = await self._deciding.look(image, tenant, arrived, before)
                self._parts.metrics.decide.observe(time.perf_counter() - began_s)
                cost = cost.plus(self._counted_steps(context))
                self._check_rate(tenant, cost)
                self._count(context)  # 3. count the demand
                admitted = self._admit(context)  # 4. accept or refuse
                self._parts.neighbours.note_asked(context.prefix, tenant)  # what is refused was not drawn
                before.append(context.decided.served.level)
                streams.append(self._answer(context, admitted))
            self._parts.rates.charge(tenant, cost)
            async with aclosing(merge_events(streams) if len(streams) > 1 else streams[0]) as events:
                async for event in events:
                    yield event
        finally:
            self._active -= 1
            if not self._active:
                self._idle.set()

    async def _answer(self, context: RequestContext, admitted: Admitted) -> Events:
        """The events of one image."""
        ahead = self._parts.dispatchers.of_model(context.decided.served.level.model).num_queued
        yield accepted_event(context, admitted, ahead, tells_nearest=self._tells_nearest)
        delivery = Delivery(self._parts, self._deciding, context)
        async with aclosing(delivery.draw()) as events:  # 5. place, send, relay; 6. check the image
            async for event in events:
                yield event

    async def explain(self, request: ImageRequest, tenant: str, left_s: float | None) -> gateway_pb2.ExplainResponse:
        """What `generate` would do now, without doing or counting it."""
        arrived = self._arrived(left_s)
        await self._check_prompt(request, tenant, arrived)
        context = await self._deciding.look(request, tenant, arrived)
        rules, dispatchers = self._parts.rules, self._parts.dispatchers
        view = dispatchers.view().for_cost(context.cost)
        levels = [
            outlook_message(entry, context, estimate_s(view.of_model(entry.level.model), entry.level))
            for entry in outlook(rules.ladder, rules.profile, context.decided.near, context.request.limits)
        ]
        return explain_response(
            context,
            self._parts.rates.judge(tenant, RateCost().plus(self._counted_steps(context))) or context.admission,
            dispatchers.placement(Delivery(self._parts, self._deciding, context).place()),
            levels=levels,
            tells_nearest=self._tells_nearest,
        )

    async def drain(self) -> None:
        """Take no more requests; return when those taken have ended."""
        self.draining = True
        await self._idle.wait()

    @property
    def _tells_nearest(self) -> bool:
        """False where the nearest cached prompt may be another tenant's."""
        return self._parts.spec.cache.scope != "Pool"

    def _arrived(self, left_s: float | None) -> Arrived:
        if left_s is None:
            left_s = SLOS_WITHOUT_DEADLINE * self._parts.rules.slo_s
        now_s = self._loop.time()
        return Arrived(now_s, now_s + left_s)

    def _check_rate(self, tenant: str, cost: RateCost) -> None:
        """Before it counts as demand, so that no plan bends quality for what is not served."""
        if (refused := self._parts.rates.judge(tenant, cost)) is not None:
            self._parts.metrics.refusals.labels(refused.reason).inc()
            raise RequestRefused(refused)

    @staticmethod
    def _counted_steps(context: RequestContext) -> float:
        return counted_steps(context.decided.served.level.cost, context.cost)

    async def _check_prompt(self, request: ImageRequest, tenant: str, arrived: Arrived) -> None:
        await self._parts.safety.check_prompt(request, tenant, arrived.deadline_s - self._loop.time())

    def _count(self, context: RequestContext) -> None:
        decided, metrics, rules = context.decided, self._parts.metrics, self._parts.rules
        self._parts.planning.count(decided.prompt_class, context.cost)
        metrics.wanted.labels(rules.label(decided.wanted.level)).inc()
        metrics.decisions.labels(decided.reason).inc()
        metrics.lookups.labels(band_of(decided.near.similarity)).inc()
        metrics.pressure.set(decided.pressed)

    def _admit(self, context: RequestContext) -> Admitted:
        if isinstance(context.admission, Refused):
            level = context.decided.served.level
            raise self._parts.dispatchers.of_model(level.model).refused(context.admission, level)
        return context.admission
