"""Real processes draw images of several sizes: each has the size that was asked for, and latents of two never mix."""

import pytest

from t2i_protos.v1 import gateway_pb2
from t2i_testing_kit.serving import Client, WritePool, image_of, violated_fields
from t2ictl.local_pool import LocalPool

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module")]
Request = gateway_pb2.GenerateRequest
SIZES = "[{width: 72, height: 48}, {width: 24, height: 24, maxWidth: 48, maxHeight: 48, multipleOf: 24}]"
ASKED = {(0, 0): (48, 48), (72, 48): (72, 48), (24, 48): (24, 48), (48, 24): (48, 24)}


@pytest.mark.parametrize("engine", ["diffusion", "simulated"])
async def test_image_has_the_size_that_was_asked_for(write_pool: WritePool, engine: str) -> None:
    """Of the default size where none is; a size that the pool does not list is refused with all that it does."""
    options = write_pool(workers=1, engine=engine, slo_ms=120_000, sizes=SIZES)
    async with LocalPool(options) as pool:
        client = Client(pool.address)
        for (width, height), drawn in ASKED.items():
            events = await client.events(Request(prompt="a red circle", seed=1, exact=True, width=width, height=height))
            assert image_of(events).shape == (drawn[1], drawn[0], 3)
        error = await client.refusal(Request(prompt="a", width=32, height=32))
        assert violated_fields(error) == ["width"]
        assert "48x48, 72x48, 24x24 to 48x48 in steps of 24 pixels" in str(error.details())
        if engine == "diffusion":
            done = await client.done(Request(prompt="a red circle", seed=1, width=72, height=48))
            other = await client.done(Request(prompt="a red circle", seed=2, width=24, height=24))
            assert (done.served.skipped_steps > 0, other.served.skipped_steps) == (True, 0)
