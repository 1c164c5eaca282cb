"""The steps in an answer over HTTP are those that were run for it."""

import pytest

from t2i_gateway.doors.answers import AnsweredImage, usage
from t2i_protos.v1 import gateway_pb2, level_pb2

EXACT = gateway_pb2.Reproduction(exact=True)
SKIP = {"skipped_steps": 9}

#: What was served, how it is drawn again, and the steps that ran.
RUNS: dict[str, tuple[dict[str, int], gateway_pb2.Reproduction | None, int]] = {
    "the full schedule": ({}, EXACT, 12),
    "from another run's latent": (SKIP, None, 3),
    "from the latent of this very image": (SKIP, EXACT, 0),
}


@pytest.mark.parametrize("what", RUNS)
def test_usage_counts_the_steps_that_ran(what: str) -> None:
    """Whoever pays by steps pays none for an image that was only decoded."""
    level, reproduction, steps = RUNS[what]
    image = AnsweredImage()
    image.done = gateway_pb2.Done(served=level_pb2.Level(num_inference_steps=12, **level), reproduction=reproduction)
    told = usage([image, image])
    assert (told["images"], told["steps"]) == (2, 2 * steps)
