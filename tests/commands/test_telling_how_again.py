"""`t2ictl generate` says which options draw an image again, or why none do."""

import pytest

from t2i_protos.v1 import gateway_pb2, level_pb2
from t2ictl.commands.request import tell_how_again

SKIPS = level_pb2.Level(skipped_steps=6, num_inference_steps=12)
FORECASTS = level_pb2.Level(num_inference_steps=12, forecast=2, guided_steps=4)


@pytest.mark.parametrize(
    ("done", "says"),
    [
        (gateway_pb2.Done(reproduction=gateway_pb2.Reproduction(exact=True)), "--exact"),
        (gateway_pb2.Done(reproduction=gateway_pb2.Reproduction(num_inference_steps=6)), "--steps 6"),
        (gateway_pb2.Done(served=SKIPS), "another image's latents"),
        (gateway_pb2.Done(served=FORECASTS), "where this level is served"),
    ],
    ids=["exact", "steps", "latents of another run", "level without a name"],
)
def test_it_tells_what_draws_the_image_again(done: gateway_pb2.Done, says: str) -> None:
    """A first image of a fresh pool may have forecasts: to say that it began from another image is wrong."""
    assert says in tell_how_again(done)
