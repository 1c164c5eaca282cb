"""What is decided for one request: its neighbour, its level and with it its model, whether it is admitted.

The decisions are the policy's; this module gathers what they see.
"""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace

from t2i_cache.catalogue import Neighbour
from t2i_cache.follow import Holdings
from t2i_gateway.context import Arrived, RequestContext, expected_quality_percent
from t2i_gateway.errors import RequestInvalid
from t2i_gateway.neighbours import LatentPrefix
from t2i_gateway.parts import Parts
from t2i_gateway.request import ImageRequest, check_images, check_negative_prompt
from t2i_gateway.several_images import behind_siblings
from t2i_gateway.spans import spanned_decision
from t2i_policy.features import read_prompt
from t2i_policy.level import Level
from t2i_policy.pool_view import PoolView
from t2i_policy.request.admission import Admitted, Refused, decide_admission, refuse_moved
from t2i_policy.request.decide import Arrival, Decided
from t2i_policy.request.elsewhere import decide_elsewhere, decide_with_room, moved
from t2i_policy.request.guidance import guidance_cost, heed_guidance
from t2i_policy.request.latent_holders import choose_with_holders, reachable_steps
from t2i_policy.request.options import NOWHERE, Neighbourhood, breaks_floor
from t2i_policy.request.served import ServedReason
from t2i_runtime.errors import Violation


class Deciding:
    """Used from one event loop."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._clock = asyncio.get_running_loop().time

    @spanned_decision
    async def look(
        self, request: ImageRequest, tenant: str, arrived: Arrived, before: Sequence[Level] = ()
    ) -> RequestContext:
        """Embed, find the nearest, decide level and admission; behind images of these levels that are not queued yet.

        Raises:
            RequestInvalid: the model that would draw it cannot use its images or its negative prompt, or cannot hold
                its floor.
        """
        parts = self._parts
        request = self._heeding_guidance(self._with_able_model(request))
        embedding = await parts.embeddings.embed(request.prompt, tenant)
        prefix = parts.neighbours.prefix(request, tenant, parts.workers.description(""), embedding)
        neighbour = parts.neighbours.nearest(prefix, embedding)
        holdings = parts.neighbours.holdings(prefix, neighbour)
        if neighbour is not None and holdings is not None:  # what no ready worker has cannot be promised
            neighbour = replace(neighbour, steps=reachable_steps(holdings, parts.workers.views_of("")))
        near = self._neighbourhood(request, tenant, prefix, neighbour)
        step_cost = 1.0 if request.size == parts.spec.model.default_size else parts.workers.step_cost(request.size)
        step_cost *= guidance_cost(request.limits, request.asked_guidance, parts.spec.guidance_scales)
        cost = step_cost * request.drawing.images.steps_share
        arrival = Arrival(request.limits, near, arrived.deadline_s - self._clock(), random.random(), cost)
        view = self._view(tenant, before, cost)
        decided, admission = decide_with_room(
            lambda pool: self._decide(arrival, tenant, pool, holdings),
            lambda decided: self._admit(decided, tenant, arrival.left_s, view, cost),
            view,
        )
        self._check_floor(request, decided)
        return RequestContext(
            request=request,
            tenant=tenant,
            arrived_s=arrived.at_s,
            deadline_s=arrived.deadline_s,
            embedding=embedding,
            prefix=prefix,
            neighbour=neighbour,
            decided=decided,
            admission=admission,
            base_steps=parts.rules.ladder.base_steps,
            step_cost=step_cost,
            holdings=holdings,
            quality_percent=expected_quality_percent(decided, parts.rules.profile, request.limits.measured),
        )

    def anew(self, context: RequestContext) -> RequestContext | None:
        """The same request by another model than its present one, which is gone; None: none may serve it now.

        Raises:
            RequestRefused: one may, and would be late.
        """
        decided = self._elsewhere(context)
        if decided is None:
            return None
        late = refuse_moved(decided.served, self._left_s(context))
        if late is not None:
            level = decided.served.level
            raise self._parts.dispatchers.of_model(level.model).refused(late, level)
        return self._moved(context, decided, ServedReason.MODEL_GONE)

    def sooner(self, context: RequestContext) -> RequestContext | None:
        """The same request by another model than its present one, where it would be late; None: none is in time."""
        decided = self._elsewhere(context)
        if decided is None or decided.served.estimated_s > self._left_s(context):
            return None
        return self._moved(context, decided, ServedReason.DEADLINE)

    def _elsewhere(self, context: RequestContext) -> Decided | None:
        request, near, cost = context.request, context.decided.near, context.cost
        arrival = Arrival(request.limits, near, self._left_s(context), random.random(), cost)
        return decide_elsewhere(
            lambda pool: self._decide(arrival, context.tenant, pool, context.holdings),
            self._parts.dispatchers.view(context.tenant),
            context.decided.served.level.model,
        )

    def _moved(self, context: RequestContext, decided: Decided, reason: ServedReason) -> RequestContext:
        decided, measured = moved(decided, reason), context.request.limits.measured
        quality = expected_quality_percent(decided, self._parts.rules.profile, measured)
        return replace(context, decided=decided, quality_percent=quality)

    def _left_s(self, context: RequestContext) -> float:
        return context.deadline_s - self._clock()

    def _admit(self, decided: Decided, tenant: str, left_s: float, view: PoolView, cost: float) -> Admitted | Refused:
        room = self._queue_room(decided.served.level.model, tenant)
        return decide_admission(view.for_cost(cost), decided.served, left_s, room)

    def _with_able_model(self, request: ImageRequest) -> ImageRequest:
        """One with images goes to the first model that can draw from them, if the pool's own cannot."""
        workers, demanded = self._parts.workers, request.limits.model
        if request.drawing.images and demanded is None:
            takes, told = request.drawing.images.used, {model: workers.description(model) for model in self._models}
            able = [model for model, one in told.items() if one is not None and takes <= set(one.image_inputs)]
            if told[""] is not None and able and "" not in able:
                return replace(request, limits=replace(request.limits, model=able[0]))
        check_images(request, workers.description(demanded or ""))
        return request

    def _heeding_guidance(self, request: ImageRequest) -> ImageRequest:
        """What it says of guidance is about one model; the others of the pool leave it alone."""
        scales = self._parts.spec.guidance_scales
        check_negative_prompt(request, scales, self._parts.names.own)
        limits = heed_guidance(request.limits, request.asked_guidance, scales)
        return request if limits == request.limits else replace(request, limits=limits)

    @property
    def _models(self) -> tuple[str, ...]:
        """The pool's own first."""
        return ("", *self._parts.spec.models)

    def _check_floor(self, request: ImageRequest, decided: Decided) -> None:
        limits = request.limits
        if not breaks_floor(decided.wanted, limits):
            return
        best, floor = 100 * (1 - decided.wanted.expected_loss), 100 * (1 - limits.max_loss)
        advice = f"ask for {self._parts.names.own}, or leave model out"
        if limits.max_loss < self._parts.rules.max_loss:
            advice = f"lower min_quality_percent, {advice}"
        text = f"{limits.model} is expected to keep {best:.1f}% of quality for this prompt, {floor:.0f}% are the least"
        raise RequestInvalid([Violation("model", f"{text}: {advice}")])

    def _neighbourhood(
        self, request: ImageRequest, tenant: str, prefix: LatentPrefix | None, neighbour: Neighbour | None
    ) -> Neighbourhood:
        neighbours = self._parts.neighbours
        return replace(
            NOWHERE if neighbour is None else self._start(neighbour),
            prompt=read_prompt(request.prompt),
            same_image=neighbours.holds_same_image(prefix, tenant, neighbour),
            repeated=neighbours.repeats(prefix, tenant, neighbour),
            words_agree=neighbours.words_agree(prefix, tenant, neighbour),
        )

    def _start(self, neighbour: Neighbour) -> Neighbourhood:
        """One final latent serves every K."""
        skips = frozenset(self._parts.rules.ladder.skips if neighbour.steps else ())
        return Neighbourhood(neighbour.similarity, skips)

    def _view(self, tenant: str, before: Sequence[Level], step_cost: float) -> PoolView:
        return behind_siblings(self._parts.dispatchers.view(tenant), before, step_cost)

    def _decide(self, arrival: Arrival, tenant: str, view: PoolView, holdings: Holdings | None) -> Decided:
        """The level; where each worker has latents of its own, one that a worker can serve without waiting too long."""
        parts = self._parts
        plan = parts.planning.plan
        decided = parts.planning.policy.serve(parts.rules, plan, arrival, view)
        level = decided.served.level
        if holdings is None or not level.needs_latent:
            return decided
        alone = replace(arrival, near=replace(arrival.near, stored_steps=frozenset()))
        without = parts.planning.policy.serve(parts.rules, plan, alone, view)
        holders = frozenset[str]().union(*holdings.values())
        line = parts.dispatchers.of_model(level.model).holder_line(holders, self._queue_room(level.model, tenant))
        own = view.of_model(level.model).for_cost(arrival.step_cost)
        return choose_with_holders(decided, without, own, line, arrival.left_s)

    def _queue_room(self, model: str, tenant: str) -> int:
        return self._parts.dispatchers.queue_room(model, tenant, self._parts.spec.gateway.max_queued_requests)
