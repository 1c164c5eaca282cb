"""Prompts that the embedder does not read whole, through a whole pool: only the identical one gives its latents."""

from pathlib import Path

import pytest

from t2i_policy.profile_document import render_profile
from t2i_protos.v1 import gateway_pb2
from t2i_testing_kit.serving import Client, WritePool, make_profile, metric
from t2ictl.local_pool import LocalPool
from tiny_embedders import write_embedder

pytestmark = pytest.mark.process
READ, CAT, TRAIN = "red circle", "red circle 🐈", "red circle 🚂"


async def test_only_the_identical_prompt_is_found(write_pool: WritePool, tmp_path: Path) -> None:
    """Two that differ by one unknown sign, and the words alone, never start from each other; a repeat does."""
    folder = write_embedder(tmp_path / "embedder")
    options = write_pool(workers=1, engine="diffusion", slo_ms=60_000, embedder=folder.as_uri())
    assert options.profile is not None
    options.profile.write_text(render_profile(make_profile((0.05,))))
    async with LocalPool(options) as pool:
        assert pool.gateway is not None
        client = Client(pool.address)

        async def skipped(prompt: str) -> int:
            request = gateway_pb2.GenerateRequest(prompt=prompt, seed=1)
            return (await client.done(request, 60)).served.skipped_steps

        firsts = [await skipped(prompt) for prompt in (CAT, TRAIN, READ)]
        repeats = [await skipped(prompt) for prompt in (CAT, TRAIN, READ)]
        assert (firsts, repeats) == ([0, 0, 0], [10, 10, 10])
        assert await metric(pool.gateway, 't2i_gateway_unread_prompts_total{reason="Unknown"}') == 4
        await client.channel.close()
