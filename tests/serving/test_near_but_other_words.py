"""Twins through real processes: nearly the same words for another picture get no late skip, paraphrases do."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio

from t2i_policy.profile_document import render_profile
from t2i_policy.twin_loss import TwinLoss
from t2i_protos.v1 import gateway_pb2
from t2i_testing_kit.serving import Client, WritePool, make_profile
from t2ictl.local_pool import LocalOptions, LocalPool

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module")]
Request = gateway_pb2.GenerateRequest
SAID = "two large red rings side by side on a striped yellow background"
PARAPHRASE = "two big scarlet donuts next to each other on a lined golden backdrop"
RECOUNTED = "three large red rings side by side on a striped yellow background"
RESIZED = "two small red rings side by side on a striped yellow background"
STACKED = "two large red rings one above the other on a striped yellow background"
TWINS = TwinLoss(0.3, 0.0, 40, differing=TwinLoss(0.3, 0.0, 40))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool(write_pool: WritePool) -> AsyncIterator[LocalPool]:
    """Twins lost 30 % at the skip, and words told all of them; what else is so near lost nothing."""
    options: LocalOptions = write_pool(workers=1, engine="diffusion", slo_ms=60_000)
    assert options.profile is not None
    made = make_profile((0.05,))
    bands = tuple(replace(one, twins=TWINS if one.similarity_min == 0.8 else None) for one in made.losses)
    options.profile.write_text(render_profile(replace(made, losses=bands)))
    async with LocalPool(options) as started:
        yield started


async def skipped(client: Client, prompt: str, tenant: str) -> int:
    await client.events(Request(prompt=SAID, seed=1, exact=True), tenant=tenant)
    return (await client.done(Request(prompt=prompt, seed=2), tenant=tenant)).served.skipped_steps


@pytest.mark.parametrize(
    ("prompt", "steps"),
    [(PARAPHRASE, 10), (RECOUNTED, 0), (RESIZED, 0), (STACKED, 0)],
    ids=["a paraphrase", "another number", "another size", "another arrangement"],
)
async def test_only_a_paraphrase_resumes_late(client: Client, prompt: str, steps: int) -> None:
    """All are nearer than 0.8, where the profile says that the skip is harmless."""
    assert await skipped(client, prompt, f"artist-{len(prompt)}") == steps


async def test_explain_says_that_words_decided(client: Client) -> None:
    """In a sentence, and beside the level by whose losses it is judged."""
    await client.events(Request(prompt=SAID, seed=1, exact=True), tenant="dora")
    told = {}
    for prompt in (PARAPHRASE, RECOUNTED):
        question = gateway_pb2.ExplainRequest(request=Request(prompt=prompt, seed=2))
        told[prompt] = await client.stub.Explain(question, timeout=60, metadata=(("x-t2i-tenant", "dora"),))
    assert "and its numbers, colours, places and the like agree" in told[PARAPHRASE].decision.message
    assert "but its words, such as numbers, colours or places, differ" in told[RECOUNTED].decision.message
    (late,) = [level for level in told[RECOUNTED].levels if level.level.skipped_steps]
    assert (late.reason, late.eligible) == ("BelowQualityFloor", False)
    assert "its words differ, and such twins lost 30.0%" in late.explanation
