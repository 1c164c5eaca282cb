"""A case: one request that was looked at, and the messages made of it, for its worker and in the end for its client."""

from dataclasses import dataclass

from t2i_api.pool import PoolSpec
from t2i_cache.catalogue import Neighbour
from t2i_cache.follow import Holdings
from t2i_gateway.messages import to_level_message
from t2i_gateway.neighbours import LatentPrefix, seed_of
from t2i_gateway.request import ImageRequest
from t2i_policy.level import Ladder
from t2i_policy.request.decide import Decided
from t2i_protos.v1 import gateway_pb2, level_pb2, worker_pb2
from t2i_sources.embedder import Embedding


@dataclass(frozen=True, slots=True)
class RequestContext:
    """What is known of a request and what was decided. Seconds of the event loop's clock. `holdings`: which workers had
    the neighbour's latents then, where each keeps its own.
    """

    asked: ImageRequest
    tenant: str
    arrived_s: float
    deadline_s: float
    embedding: Embedding | None
    shelf: LatentPrefix | None
    neighbour: Neighbour | None
    decided: Decided
    base_steps: int
    holdings: Holdings | None = None


@dataclass(frozen=True, slots=True)
class Waited:
    """How long a request waited in the queue and took in all, and how often it was moved."""

    queued_s: float
    total_s: float
    retries: int


def order_of(
    case: RequestContext, spec: PoolSpec, left_s: float, steps: frozenset[int]
) -> worker_pb2.WorkerGenerateRequest:
    """What the worker is told; `steps`: those of the neighbour whose latents it can reach."""
    asked, level = case.asked, case.decided.served.level
    order = worker_pb2.WorkerGenerateRequest(
        request_id=asked.request_id,
        prompt=asked.prompt,
        negative_prompt=asked.negative_prompt,
        seed=asked.seed,
        width=spec.model.width,
        height=spec.model.height,
        guidance_scale=asked.guidance_scale,
        output_format=asked.output_format,
        level=to_level_message(level),
        budget_ms=max(1, int(1e3 * left_s)),
        preview_every_steps=asked.preview_every_steps,
    )
    if level.needs_latent and case.shelf is not None and case.neighbour is not None:
        order.source.scope, order.source.embedder = case.shelf.scope, case.shelf.embedder
        order.source.entry_id = case.neighbour.entry_id
        seed = seed_of(case.neighbour.entry_id)
        if seed is not None:
            order.source.seed = seed
        order.source.steps.extend(sorted(steps))
    if is_worth_keeping(case, spec.ladder, steps) and case.shelf is not None and case.embedding is not None:
        order.sink.scope, order.sink.embedder = case.shelf.scope, case.shelf.embedder
        order.sink.entry_id = case.shelf.entry_id
        order.sink.steps.extend(spec.ladder.steps_to_keep)
        order.sink.embedding = case.embedding.vector.astype("<f4").tobytes()
    return order


def is_worth_keeping(case: RequestContext, ladder: Ladder, steps: frozenset[int]) -> bool:
    """Only exact runs are kept, and only of prompts whose latents the worker cannot reach already."""
    if case.decided.served.level != ladder.exact or not ladder.steps_to_keep:
        return False
    near, shelf = case.neighbour, case.shelf
    there = near is not None and shelf is not None and shelf.holds_prompt(near.entry_id)
    return not (there and steps.issuperset(ladder.steps_to_keep))


def reproduction_of(case: RequestContext, served: level_pb2.Level) -> gateway_pb2.Reproduction | None:
    """Which request draws this image again; None where it started from another run's latents."""
    if not served.skipped_steps:
        exact = served.num_inference_steps == case.base_steps
        return gateway_pb2.Reproduction(exact=exact, num_inference_steps=0 if exact else served.num_inference_steps)
    return gateway_pb2.Reproduction(exact=True) if case.decided.near.same_image else None


def done_of(
    case: RequestContext, started: worker_pb2.Started, finished: worker_pb2.Finished, waited: Waited
) -> gateway_pb2.Done:
    """What the client is told in the end: what really ran, and how long everything took."""
    timings = gateway_pb2.Timings(
        queue_ms=1e3 * waited.queued_s,
        wait_ms=finished.wait_ms,
        denoise_ms=finished.denoise_ms,
        encode_ms=finished.encode_ms,
        total_ms=1e3 * waited.total_s,
    )
    return gateway_pb2.Done(
        served=finished.served,
        reason=case.decided.reason if started.reason == "AsRequested" else started.reason,
        seed=case.asked.seed,
        timings=timings,
        retries=waited.retries,
        reproduction=reproduction_of(case, finished.served),
        prompt_cuts=started.prompt_cuts,
    )
