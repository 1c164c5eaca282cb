"""Seeds through real processes: another seed is another image, the same seed is the same one, and `done` says which."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from dataclasses import replace

import grpc
import numpy as np
import pytest
import pytest_asyncio

from t2i_policy.profile_document import render_profile
from t2i_protos.v1 import gateway_pb2
from t2i_testing_kit.serving import Client, WritePool, image_of, make_profile
from t2ictl.local_pool import LocalOptions, LocalPool

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module")]
Request = gateway_pb2.GenerateRequest
DIVERSITY_LOST = 0.6
SAID = "a large red circle above a small blue square on a striped yellow background"
PARAPHRASE = "a big red disc above a tiny blue square on a striped yellow background"
SAID_OTHERWISE = "a large red circle above a small blue square on a dotted yellow background"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool(write_pool: WritePool) -> AsyncIterator[LocalPool]:
    """Skips lose no quality from similarity 0.8 on, but their images of two seeds are much alike."""
    options: LocalOptions = write_pool(workers=1, engine="diffusion", slo_ms=60_000)
    assert options.profile is not None
    made = make_profile((0.05,))
    bands = tuple(replace(one, diversity_loss=DIVERSITY_LOST if one.level.needs_latent else 0.0) for one in made.losses)
    options.profile.write_text(render_profile(replace(made, losses=bands)))
    async with LocalPool(options) as started:
        yield started


def differ(images: list[np.ndarray]) -> float:
    """Mean difference of the two most alike, in levels of 255."""
    pairs = itertools.combinations([image.astype(float) for image in images], 2)
    return min(float(np.abs(one - other).mean()) for one, other in pairs)


@pytest.mark.parametrize("at_once", [False, True], ids=["one after the other", "at once"])
async def test_four_seeds_are_four_images(client: Client, at_once: bool) -> None:
    """ "Try again" works: seeds 2 to 4 resumed the first one's latent and were its image, bit by bit."""
    tenant = f"artist-{at_once}"
    calls = [
        client.events(Request(prompt="a green ring left of a white cross", seed=s), 60, tenant) for s in (1, 2, 3, 4)
    ]
    drawn = await asyncio.gather(*calls) if at_once else [await call for call in calls]
    assert differ([image_of(events) for events in drawn]) > 5
    for events in drawn:
        done = events[-1].done
        assert done.reproduction.exact or done.reproduction.num_inference_steps


async def test_prompt_without_a_seed_varies(client: Client) -> None:
    """Nobody named a seed: asking again is asking for another picture."""
    drawn = [await client.events(Request(prompt="a blue star above a red square"), 60, "bob") for _ in range(3)]
    assert differ([image_of(events) for events in drawn]) > 5
    assert len({events[-1].done.seed for events in drawn}) == 3


async def test_same_prompt_and_seed_resume_late(client: Client) -> None:
    """The same image again, for half of the steps, and `done` names what draws it."""
    request = Request(prompt="three orange rings on a plain white background", seed=11, min_quality_percent=100)
    first, again = [await client.events(request, 60, "carol") for _ in range(2)]
    assert [events[-1].done.served.skipped_steps for events in (first, again)] == [0, 10]
    assert again[-1].done.reason == "SameImageCached"
    assert np.abs(image_of(again).astype(float) - image_of(first)).max() <= 1
    assert [events[-1].done.reproduction.exact for events in (first, again)] == [True, True]


async def test_done_tells_how_the_image_is_drawn_again(client: Client) -> None:
    """What `reproduction` names draws the image of `done.seed`; one from another run's latents has none."""
    await client.events(Request(prompt=SAID, seed=1, exact=True), 60, "dave")
    near = (await client.events(Request(prompt=SAID_OTHERWISE, seed=2), 60, "dave"))[-1].done
    assert (near.served.skipped_steps, near.HasField("reproduction")) == (10, False)
    events = await client.events(Request(prompt=SAID, seed=3), 60, "dave")
    done, told = events[-1].done, events[-1].done.reproduction
    again = Request(prompt=SAID, seed=done.seed, exact=told.exact)
    if not told.exact:
        again.num_inference_steps = told.num_inference_steps
    assert np.array_equal(image_of(await client.events(again, 60, "dave")), image_of(events))


async def test_similar_prompt_asked_again_becomes_another_image(client: Client) -> None:
    """The first may start from a neighbour; with other seeds it must not look like it."""
    await client.events(Request(prompt=SAID, seed=1, exact=True), 60, "erin")
    asked = [Request(prompt=SAID_OTHERWISE, seed=seed) for seed in (1, 2, 3)]
    drawn = [await client.events(one, 60, "erin") for one in asked]
    assert [events[-1].done.served.skipped_steps for events in drawn] == [10, 0, 0]
    assert differ([image_of(events) for events in drawn]) > 5


async def test_refused_request_is_not_remembered(client: Client) -> None:
    """Nothing was drawn, so asking again costs no more than asking did."""
    await client.events(Request(prompt=SAID, seed=1, exact=True), 60, "fred")
    refused = Request(prompt=SAID_OTHERWISE)
    for _ in range(3):
        with pytest.raises(grpc.aio.AioRpcError):
            await client.events(refused, 0.001, "fred")
    assert (await client.events(refused, 60, "fred"))[-1].done.served.skipped_steps == 10


async def test_same_words_written_otherwise_are_another_image(client: Client) -> None:
    """A space, a capital or a stop more does not bring the first image back."""
    drawn = [await client.events(Request(prompt=SAID, seed=1, exact=True), 60, "gina")]
    for seed, prompt in enumerate((f"{SAID} ", SAID.upper(), f"{SAID}.", PARAPHRASE), 2):
        drawn.append(await client.events(Request(prompt=prompt, seed=seed), 60, "gina"))
    assert {events[-1].done.served.skipped_steps for events in drawn} == {0}
    assert differ([image_of(events) for events in drawn]) > 5
