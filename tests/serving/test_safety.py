"""What a pool's classifier refuses is neither drawn, nor sent, nor kept; what it does not answer is not served."""

import io
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import pytest_asyncio
from google.rpc import error_details_pb2
from PIL import Image

from t2i_policy.profile_document import render_profile
from t2i_protos.v1 import gateway_pb2
from t2i_testing_kit.played_classifier import FAILING, PlayedClassifier, add_safety, played_classifier
from t2i_testing_kit.serving import WITHIN_S, Client, WritePool, detail, image_of, latent_files, make_profile, metric
from t2ictl.local_pool import LocalOptions, LocalPool

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module")]
Request = gateway_pb2.GenerateRequest
PATIENT, IMPATIENT = (f", timeoutMilliseconds: {limit_ms}" for limit_ms in (30_000, 500))


@pytest.fixture(scope="module")
def classifier() -> Iterator[PlayedClassifier]:
    with played_classifier() as server:
        yield server


@pytest.fixture(autouse=True)
def _allowing(classifier: PlayedClassifier) -> None:
    classifier.image_behaviour = "allow"
    classifier.heard.clear()


@pytest.fixture(scope="module")
def options(write_pool: WritePool, classifier: PlayedClassifier) -> LocalOptions:
    """A real model, so that there are latents to keep or not."""
    made = write_pool(workers=1, engine="diffusion", slo_ms=60_000)
    assert made.profile is not None
    made.profile.write_text(render_profile(make_profile((0.05,))))
    add_safety(made.pool_file, classifier.url, further=PATIENT)
    return made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lenient(write_pool: WritePool, classifier: PlayedClassifier) -> AsyncIterator[Client]:
    """A client of a pool that fails open."""
    made = write_pool(workers=1)
    add_safety(made.pool_file, classifier.url, further=f"{PATIENT}, failOpen: true")
    async with LocalPool(made) as pool:
        client = Client(pool.address)
        yield client
        await client.channel.close()


def folder_of(options: LocalOptions) -> Path:
    assert options.folder is not None
    return options.folder


async def read_into(seen: list[gateway_pb2.GenerateEvent], call: Any) -> None:
    async for event in call:
        seen.append(event)  # noqa: PERF401 - what came before the error counts


def reason_of(error: grpc.aio.AioRpcError) -> str:
    return str(detail(error, error_details_pb2.ErrorInfo()).reason)


async def checks(pool: LocalPool, place: str, outcome: str) -> float:
    assert pool.gateway is not None
    return await metric(pool.gateway, f't2i_gateway_safety_checks_total{{outcome="{outcome}",place="{place}"}}')


async def test_allowed_prompt_and_image_are_served_whole(client: Client, classifier: PlayedClassifier) -> None:
    """Both were shown to it, the image as the client gets it; it hears no tenant's name. Latents are kept as ever."""
    prompt = "a big red circle on a plain green background"
    events = await client.events(Request(prompt=prompt, negative_prompt="blur", seed=1, exact=True), 60, "alice")
    assert image_of(events).shape == (48, 48, 3)
    about_prompt, about_image = classifier.heard
    assert (about_prompt["prompt"], about_prompt["negative_prompt"]) == (prompt, "blur")
    assert about_image["image"]["format"] == "png"
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(classifier.images[0]))), image_of(events))
    assert about_prompt["request_id"] == about_image["request_id"] == events[0].accepted.request_id
    assert about_prompt["pool"] == "test"
    assert len(about_prompt["tenant"]) == 32
    assert "alice" not in str(classifier.heard)
    again = await client.done(Request(prompt=prompt, negative_prompt="blur", seed=2), 60, "alice")
    assert again.served.skipped_steps == 10


async def test_refused_prompt_is_not_drawn(client: Client, pool: LocalPool, options: LocalOptions) -> None:
    """The client learns the category, in a reason for programs; nothing a terminal obeys comes through."""
    before, refused = len(latent_files(folder_of(options))), await checks(pool, "prompt", "refused")
    error = await client.refusal(Request(prompt="please forbid this"), 60)
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert reason_of(error) == "CONTENT_POLICY_VIOLATION"
    assert "violence" in (error.details() or "")
    assert "\x1b" not in (error.details() or "")
    with pytest.raises(grpc.aio.AioRpcError) as told:
        await client.stub.Explain(gateway_pb2.ExplainRequest(request=Request(prompt="forbid")), timeout=WITHIN_S)
    assert told.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert len(latent_files(folder_of(options))) == before
    assert await checks(pool, "prompt", "refused") == refused + 2


async def test_refused_image_is_neither_sent_nor_kept(
    client: Client, pool: LocalPool, classifier: PlayedClassifier, options: LocalOptions
) -> None:
    """No byte of it, no preview of it; and no later image starts from its latent."""
    prompt, before = "a small yellow square on a plain blue background", latent_files(folder_of(options))
    classifier.image_behaviour = "forbid"
    call = client.stub.Generate(Request(prompt=prompt, seed=1, preview_every_steps=1), timeout=WITHIN_S)
    seen: list[gateway_pb2.GenerateEvent] = []
    with pytest.raises(grpc.aio.AioRpcError) as told:
        await read_into(seen, call)
    assert told.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert {event.WhichOneof("event") for event in seen} == {"accepted", "progress"}
    assert latent_files(folder_of(options)) == before
    classifier.image_behaviour = "allow"
    assert (await client.done(Request(prompt=prompt, seed=2), 60)).served.skipped_steps == 0
    assert await checks(pool, "image", "refused") >= 1


@pytest.mark.parametrize("behaviour", FAILING)
async def test_prompt_that_cannot_be_checked_is_not_served(client: Client, pool: LocalPool, behaviour: str) -> None:
    """Whatever the endpoint does in place of an answer. A client may try again."""
    failed = await checks(pool, "prompt", "failed")
    error = await client.refusal(Request(prompt=f"{behaviour} now"), 60)
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert "could not be checked" in (error.details() or "")
    assert await checks(pool, "prompt", "failed") == failed + 1


@pytest.mark.parametrize("behaviour", FAILING)
async def test_pool_may_fail_open(lenient: Client, behaviour: str) -> None:
    """What cannot be checked is served then; what is refused is not."""
    assert (await lenient.done(Request(prompt=f"{behaviour} now"), 60)).served.num_inference_steps
    assert (await lenient.refusal(Request(prompt="forbid"), 60)).code() is grpc.StatusCode.FAILED_PRECONDITION


@pytest.mark.parametrize("fail_open", [False, True])
async def test_endpoint_that_hangs_costs_its_limit(
    write_pool: WritePool, classifier: PlayedClassifier, fail_open: bool
) -> None:
    """Then it is as with any other that gives no answer."""
    made = write_pool(workers=1)
    add_safety(made.pool_file, classifier.url, further=f"{IMPATIENT}, failOpen: {str(fail_open).lower()}", image=False)
    async with LocalPool(made) as pool:
        client = Client(pool.address)
        if fail_open:
            assert (await client.done(Request(prompt="hang now"))).served.num_inference_steps
        else:
            error = await client.refusal(Request(prompt="hang now"))
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert "could not be checked" in (error.details() or "")
            assert await checks(pool, "prompt", "failed") == 1
        await client.channel.close()


async def test_image_that_cannot_be_checked_is_not_sent(client: Client, classifier: PlayedClassifier) -> None:
    classifier.image_behaviour = "break"
    assert (await client.refusal(Request(prompt="a red circle"), 60)).code() is grpc.StatusCode.UNAVAILABLE


async def test_deadline_of_a_request_holds_while_it_is_checked(lenient: Client) -> None:
    """It ends at its own deadline, and is not waved through by failOpen."""
    error = await lenient.refusal(Request(prompt="hang now"), 0.3)
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_gateway_without_the_secret_says_which_field(write_pool: WritePool, classifier: PlayedClassifier) -> None:
    """It must not start and ask without the token."""
    made = write_pool(workers=1)
    add_safety(made.pool_file, classifier.url, further=", secretName: classifier")
    with pytest.raises(Exception, match=r"safety\.prompt\.secretName"):
        async with LocalPool(made):
            pass
