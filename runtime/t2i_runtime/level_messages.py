"""A level on the wire, both ways."""

from t2i_policy.level import Level
from t2i_protos.v1 import level_pb2


def level_message(level: Level) -> level_pb2.Level:
    return level_pb2.Level(
        skipped_steps=level.skipped_steps,
        num_inference_steps=level.num_inference_steps,
        forecast=level.forecast,
        guided_steps=level.guided_steps,
        solver=level.solver,
        computed_steps=level.computed_steps,
        model=level.model,
    )


def to_level(message: level_pb2.Level) -> Level:
    """Raises:
    ValueError: it is no level.
    """
    return Level(
        message.skipped_steps,
        message.num_inference_steps,
        message.forecast,
        message.guided_steps,
        message.solver,
        tuple(message.computed_steps),
        message.model,
    )
