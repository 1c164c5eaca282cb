"""Every message that the gateway writes: to its clients, and its request to a worker.

Where tenants share latents a decision's sentence leaves out how similar a cached prompt is: it may be another tenant's.
"""

from collections.abc import Sequence
from dataclasses import replace

from t2i_api.pool import PoolSpec
from t2i_gateway.context import RequestContext, Waited
from t2i_gateway.model_names import source_name
from t2i_gateway.request import ImageRequest
from t2i_policy.request.admission import Admitted, Refused
from t2i_policy.request.decide import Decided
from t2i_policy.request.explain import LevelOutlook
from t2i_policy.request.options import WantedLevel, WantedReason
from t2i_policy.request.placement import Placement
from t2i_policy.request.served import Served, ServedReason
from t2i_protos.v1 import gateway_pb2, level_pb2, worker_pb2
from t2i_runtime.drawing import PLAIN, drawing_message
from t2i_runtime.level_messages import level_message, to_level

ASKED_BEFORE = ", and this prompt was asked before with another seed"


def decision_message(decided: Decided, quality_percent: float | None, tells_nearest: bool) -> gateway_pb2.Decision:
    """The decision with its reason in a word and in a sentence. `quality_percent` None: nobody measured it."""
    return gateway_pb2.Decision(
        wanted=level_message(decided.wanted.level),
        served=level_message(decided.served.level),
        reason=decided.reason,
        message=_sentence(decided, tells_nearest),
        expected_quality_percent=quality_percent,
    )


def outlook_message(entry: LevelOutlook, context: RequestContext, estimated_s: float) -> gateway_pb2.LevelOutlook:
    """What a level would cost this prompt, for `Explain`."""
    return gateway_pb2.LevelOutlook(
        level=level_message(entry.level),
        expected_quality_percent=context.quality_percent_at(entry),
        estimated_ms=1e3 * estimated_s,
        eligible=entry.eligible,
        reason=entry.reason,
        explanation=entry.explanation,
    )


def explain_response(
    context: RequestContext,
    admission: Admitted | Refused,
    placement: Placement | None,
    *,
    levels: Sequence[gateway_pb2.LevelOutlook],
    tells_nearest: bool,
) -> gateway_pb2.ExplainResponse:
    """What would be decided, and where the request would go now."""
    near = context.decided.near
    return gateway_pb2.ExplainResponse(
        decision=decision_message(context.decided, context.quality_percent, tells_nearest),
        cached_steps=sorted(near.stored_steps) if tells_nearest else (),
        similarity=near.similarity if tells_nearest else None,
        levels=levels if tells_nearest else (),
        refusal=f"{admission.reason}: {admission.message}" if isinstance(admission, Refused) else "",
        worker=placement.worker if placement else "",
        placement_reason=placement.reason if placement else "",
    )


def accepted_event(
    context: RequestContext, admitted: Admitted, queued_ahead: int, *, tells_nearest: bool
) -> gateway_pb2.GenerateEvent:
    """The first event: what was decided, and when the image is expected."""
    accepted = gateway_pb2.Accepted(
        request_id=context.request.request_id,
        decision=decision_message(context.decided, context.quality_percent, tells_nearest),
        queued_ahead=queued_ahead,
        estimated_ms=1e3 * admitted.estimated_s,
    )
    return gateway_pb2.GenerateEvent(accepted=accepted)


def worker_request(
    context: RequestContext, spec: PoolSpec, left_s: float, reached: bool
) -> worker_pb2.WorkerGenerateRequest:
    """What the worker is told; it can reach the neighbour's latent, or not."""
    request, level, prefix = context.request, context.decided.served.level, context.prefix
    message = worker_pb2.WorkerGenerateRequest(
        request_id=request.request_id,
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        seed=request.seed,
        width=request.size.width,
        height=request.size.height,
        guidance_scale=_guidance_scale(request, spec, level.model),
        output_format=request.output_format,
        level=level_message(level),
        budget_ms=max(1, int(1e3 * left_s)),
        preview_every_steps=0 if spec.safety.image else request.preview_every_steps,  # nobody checks them
        drawing=None if request.drawing is PLAIN else drawing_message(request.drawing),
    )
    if level.needs_latent and prefix is not None and context.neighbour is not None and reached:
        message.source.CopyFrom(
            worker_pb2.LatentSource(
                scope=prefix.scope,
                embedder=prefix.embedder,
                entry_id=context.neighbour.entry_id,
                same_image=context.decided.near.same_image,
            )
        )
    if context.is_worth_keeping(spec.ladder, reached) and prefix is not None and context.embedding is not None:
        sink = message.held_sink if spec.safety.image else message.sink
        sink.CopyFrom(
            worker_pb2.LatentSink(
                scope=prefix.scope,
                embedder=prefix.embedder,
                entry_id=prefix.entry_id,
                embedding=context.embedding.vector.astype("<f4").tobytes(),
            )
        )
    return message


def _guidance_scale(request: ImageRequest, spec: PoolSpec, model: str) -> float:
    """What the request says, if it is about this model; else the model's own."""
    if not model or (request.gives_guidance and request.limits.model == model):
        return request.guidance_scale
    return spec.model_called(model).guidance_scale


def audit_request(
    context: RequestContext, spec: PoolSpec, left_s: float, reached: bool
) -> worker_pb2.WorkerGenerateRequest:
    """The exact image of a request, for an audit: behind whatever else the worker has to do."""
    served = Served(spec.ladder.exact, 0.0, left_s, ServedReason.AS_WANTED)
    exact = replace(context, decided=replace(context.decided, served=served))
    message = worker_request(exact, spec, left_s, reached)
    message.request_id, message.preview_every_steps, message.background = "", 0, True
    message.ClearField("held_sink")  # nobody checks this image, so its latent serves nobody
    return message


def file_notes(request: ImageRequest, pool: str, spec: PoolSpec, model: str = "") -> worker_pb2.FileNotes | None:
    """What the image file says; None = nothing. `model`: another than the pool's own that draws it, by name, or ""."""
    if not spec.provenance.metadata:
        return None
    name = model or source_name(spec.model.source)
    return worker_pb2.FileNotes(pool=pool, model=name, prompt=request.prompt_in_file)


def relayed_event(event: worker_pb2.WorkerEvent) -> gateway_pb2.GenerateEvent | None:
    """A worker's event, which is no chunk, as the client gets it; None for those that the gateway keeps to itself."""
    match event.WhichOneof("event"):
        case "progress":
            return gateway_pb2.GenerateEvent(progress=event.progress)
        case "preview":
            return gateway_pb2.GenerateEvent(preview=event.preview)
        case "image":
            return gateway_pb2.GenerateEvent(image=event.image)
    return None


def done_event(
    context: RequestContext, started: worker_pb2.Started, finished: worker_pb2.Finished, waited: Waited
) -> gateway_pb2.GenerateEvent:
    """What the client is told in the end: what really ran, and how long everything took."""
    timings = gateway_pb2.Timings(
        queue_ms=1e3 * waited.queued_s,
        wait_ms=finished.wait_ms,
        denoise_ms=finished.denoise_ms,
        encode_ms=finished.encode_ms,
        total_ms=1e3 * waited.total_s,
    )
    done = gateway_pb2.Done(
        served=finished.served,
        reason=context.decided.reason if started.reason == "AsRequested" else started.reason,
        seed=context.request.seed,
        timings=timings,
        retries=waited.retries,
        reproduction=_reproduction(context, finished.served),
        prompt_cuts=started.prompt_cuts,
    )
    return gateway_pb2.GenerateEvent(done=done)


def _reproduction(context: RequestContext, served: level_pb2.Level) -> gateway_pb2.Reproduction | None:
    """Which request draws this image again; None where it started from another run's latents, or none asks for it."""
    level = to_level(served)
    if level.marks:
        return None
    if level.model:
        return gateway_pb2.Reproduction(num_inference_steps=level.num_inference_steps, model=level.model)
    if not served.skipped_steps:
        exact = served.num_inference_steps == context.base_steps
        return gateway_pb2.Reproduction(exact=exact, num_inference_steps=0 if exact else served.num_inference_steps)
    return gateway_pb2.Reproduction(exact=True) if context.decided.near.same_image else None


def steps_run(done: gateway_pb2.Done) -> float:
    """Guided steps of this image. One that resumed and yet is the exact image began from its own latent: none."""
    is_stored_image = done.served.skipped_steps > 0 and done.reproduction.exact
    return 0 if is_stored_image else to_level(done.served).cost


def _sentence(decided: Decided, tells_nearest: bool) -> str:
    wanted, served = decided.wanted, decided.served
    if not tells_nearest:
        near = "what is cached is not told, as tenants share it"
    elif decided.near.similarity is None:
        near = "no similar prompt is cached" + (ASKED_BEFORE if decided.near.repeated else "")
    elif decided.near.same_image:
        near = "this prompt ran with this seed"
    else:
        near = f"the nearest cached prompt has similarity {decided.near.similarity:.2f}"
        if decided.near.repeated:
            near += ASKED_BEFORE
        elif decided.near.another_take:
            near += " (all but these words) and another seed"
        if decided.near.words_agree is False:
            near += ", but its words, such as numbers, colours or places, differ or stand in another order"
        elif decided.near.words_agree and not decided.near.repeated:
            near += ", and its numbers, colours, places and the like agree"
    says = f"{near}; {_why_wanted(wanted)}"
    if served.reason is ServedReason.PLANNED:
        says += f"; the pool's fixed mix serves it with {served.level.phrase}"
    elif served.reason is ServedReason.LOAD:
        says += f"; served with {served.level.phrase} under load, with {_why_load(decided)}"
    elif served.reason is ServedReason.DEADLINE:
        says += f"; served with {served.level.phrase} to meet the deadline"
    elif served.reason is ServedReason.MODEL_GONE:
        says += f"; served with {served.level.phrase} because no ready worker holds the model that it was meant for"
    elif served.reason is ServedReason.LATENT_ELSEWHERE:
        says += f"; served with {served.level.phrase} because workers that hold the latent are busier than others"
    if wanted.reason is WantedReason.SCHEDULE_REQUESTED or (
        wanted.reason is WantedReason.UNMEASURED and served.level.model
    ):
        return says  # nobody measured what a schedule loses that a request fixes
    return f"{says}; at most {100 * served.expected_loss:.1f}% of quality is expected to be lost"


def _why_load(decided: Decided) -> str:
    if decided.served.level.model != decided.wanted.level.model:  # `pressed` is of the model that serves
        return "less of a backlog there"
    return f"{'all' if decided.pressed >= 1 else f'{decided.pressed:.0%}'} of the slack gone"


def _why_wanted(wanted: WantedLevel) -> str:
    phrase = wanted.level.phrase
    match wanted.reason:
        case WantedReason.EXACT_REQUESTED:
            return f"the request asks for exact, {phrase}"
        case WantedReason.SCHEDULE_REQUESTED:
            return f"the request fixes {phrase}"
        case WantedReason.MODEL_REQUESTED:
            return f"the request asks for the model: {phrase}"
        case WantedReason.UNMEASURED:
            return f"no level was measured for what the request sets, so it gets {phrase}"
    return f"{phrase} is the cheapest harmless level"
