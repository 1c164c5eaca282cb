"""A decision on the wire: level messages, the reason in a word and in a sentence.

Where tenants share latents the sentence leaves out how similar a cached prompt is: it may be another tenant's.
"""

from t2i_policy.level import Level, level_phrase
from t2i_policy.request.decide import Decided
from t2i_policy.request.served import ServedReason
from t2i_protos.v1 import gateway_pb2, level_pb2


def to_level_message(level: Level) -> level_pb2.Level:
    """A level on the wire."""
    return level_pb2.Level(skipped_steps=level.skipped_steps, num_inference_steps=level.num_inference_steps)


def to_decision_message(decided: Decided, tells_nearest: bool) -> gateway_pb2.Decision:
    """The decision with its reason in a word and in a sentence."""
    return gateway_pb2.Decision(
        wanted=to_level_message(decided.wanted.level),
        served=to_level_message(decided.served.level),
        reason=decided.reason,
        message=_sentence(decided, tells_nearest),
        expected_quality_percent=decided.quality_percent,
    )


def _sentence(decided: Decided, tells_nearest: bool) -> str:
    wanted, served = decided.wanted, decided.served
    if not tells_nearest:
        near = "what is cached is not told, as tenants share it"
    elif decided.near.similarity is None:
        near = "no similar prompt is cached"
    elif decided.near.same_image:
        near = "this prompt ran with this seed"
    else:
        near = f"the nearest cached prompt has similarity {decided.near.similarity:.2f}"
        if decided.near.repeated:
            near += ", and this prompt was asked before with another seed"
        elif decided.near.another_take:
            near += " (all but these words) and another seed"
    says = f"{near}; {_phrase(wanted.level)} is the cheapest harmless level"
    if served.reason is ServedReason.PLANNED:
        says += f"; the plan for the present demand serves it with {_phrase(served.level)}"
    elif served.reason is ServedReason.LOAD:
        says += f"; served with {_phrase(served.level)} because the backlog takes {decided.pressed:.0%} of the slack"
    elif served.reason is ServedReason.DEADLINE:
        says += f"; served with {_phrase(served.level)} to meet the deadline"
    elif served.reason is ServedReason.LATENT_ELSEWHERE:
        says += f"; served with {_phrase(served.level)} because workers that hold the latent are busier than others"
    return f"{says}; at most {100 * served.expected_loss:.1f}% of quality is expected to be lost"


def _phrase(level: Level) -> str:
    return level_phrase(level.skipped_steps, level.num_inference_steps)
