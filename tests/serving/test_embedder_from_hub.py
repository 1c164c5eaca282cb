"""A gateway whose embedder comes from a hub: it serves before that answers, and finds similar prompts afterwards."""

from pathlib import Path

import pytest

from played_hub import played_hub
from t2i_policy.profile_document import render_profile
from t2i_protos.v1 import gateway_pb2
from t2i_testing_kit.serving import Client, WritePool, make_profile, metric, until
from t2ictl.local_pool import LocalPool
from tiny_embedders import write_embedder

pytestmark = pytest.mark.process
REQUEST = gateway_pb2.GenerateRequest(prompt="red circle", seed=1)
MISSING = "t2i_gateway_embedder_missing"


async def test_serves_without_and_then_with_the_embedder(
    write_pool: WritePool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the hub is away images are exact and nothing is cached; once it answers, the same prompt skips steps."""
    folder = write_embedder(tmp_path / "hub")
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with played_hub("acme/sentences", files) as hub:
        hub.up = False
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        options = write_pool(workers=1, engine="diffusion", slo_ms=60_000, embedder="hf://acme/sentences")
        assert options.profile is not None
        options.profile.write_text(render_profile(make_profile((0.05,))))
        async with LocalPool(options) as pool:
            assert pool.gateway is not None
            client = Client(pool.address)
            without = [(await client.done(REQUEST, 60)).served.skipped_steps for _ in range(2)]
            assert without == [0, 0]
            assert await metric(pool.gateway, MISSING) == 1
            gateway, missing = pool.gateway, "model.embedder: 'acme/sentences' is not under the models folder"

            async def log() -> str:
                return gateway.log_path.read_text()

            await until("the first try has failed", log, lambda text: missing in text)
            hub.up = True
            await until("the embedder is there", lambda: metric(gateway, MISSING), lambda value: value == 0)
            skipped = [(await client.done(REQUEST, 60)).served.skipped_steps for _ in range(2)]
            assert skipped == [0, 10]
            await client.channel.close()
