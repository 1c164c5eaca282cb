"""What a good request gets: events in order, checked bytes, the level it asked for, the same answer to the same id."""

import asyncio
import hashlib

import grpc
import pytest

from t2i_protos.v1 import gateway_pb2, level_pb2
from t2i_testing_kit.serving import WITHIN_S, Client, violated_fields
from t2ictl.local_pool import LocalPool

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module")]
Request = gateway_pb2.GenerateRequest


def kinds(events: list[gateway_pb2.GenerateEvent]) -> list[str | None]:
    """The kind of each event."""
    return [event.WhichOneof("event") for event in events]


async def test_events_come_in_order_and_bytes_match(client: Client) -> None:
    """Accepted, progress, image, chunks, done; size and sha256 hold for the chunks."""
    events = await client.events(Request(prompt="a red circle", seed=5))
    order = ["accepted", "progress", "image", "chunk", "done"]
    assert list(dict.fromkeys(kinds(events))) == order
    info = next(event.image for event in events if event.HasField("image"))
    data = b"".join(event.chunk.data for event in events if event.HasField("chunk"))
    assert len(data) == info.size_bytes
    assert hashlib.sha256(data).digest() == info.sha256
    assert data.startswith(b"\x89PNG")
    assert events[-1].done.seed == 5


@pytest.mark.parametrize(
    ("kind", "magic"),
    [
        (level_pb2.OUTPUT_FORMAT_PNG, b"\x89PNG"),
        (level_pb2.OUTPUT_FORMAT_JPEG, b"\xff\xd8"),
        (level_pb2.OUTPUT_FORMAT_WEBP, b"RIFF"),
    ],
)
async def test_output_format_is_honoured(client: Client, kind: level_pb2.OutputFormat.ValueType, magic: bytes) -> None:
    """Each format arrives as itself and says so."""
    events = await client.events(Request(prompt="a red circle", output_format=kind))
    data = b"".join(event.chunk.data for event in events if event.HasField("chunk"))
    assert data.startswith(magic)
    assert next(event.image.format for event in events if event.HasField("image")) == kind


async def test_exact_and_fixed_steps_are_honoured(client: Client) -> None:
    """`exact` runs the full schedule; `num_inference_steps` pins it."""
    exact = await client.done(Request(prompt="a red circle", exact=True))
    fixed = await client.done(Request(prompt="a red circle", num_inference_steps=7))
    assert (exact.served.skipped_steps, exact.served.num_inference_steps, exact.reason) == (0, 20, "ExactRequested")
    assert (fixed.served.skipped_steps, fixed.served.num_inference_steps, fixed.reason) == (0, 7, "ScheduleRequested")


@pytest.mark.parametrize(("steps", "percent"), [(7, None), (10, 95.0), (20, 100.0), (40, None)])
async def test_only_what_was_measured_is_promised(client: Client, steps: int, percent: float | None) -> None:
    """The profile knows the short schedule of 10 steps and the full one, and says nothing of others."""
    request = Request(prompt="a red circle", num_inference_steps=steps)
    told = (await client.events(request))[0].accepted.decision
    explained = await client.stub.Explain(gateway_pb2.ExplainRequest(request=request), timeout=WITHIN_S)
    (judged,) = (level for level in explained.levels if level.eligible and level.level == told.served)
    for one in (told, explained.decision, judged):
        known = one.expected_quality_percent if one.HasField("expected_quality_percent") else None
        assert known == (None if percent is None else pytest.approx(percent, abs=1e-3))


@pytest.mark.parametrize("steps", [5, 40])
async def test_exact_beside_another_schedule_is_refused(client: Client, steps: int) -> None:
    """Nobody can have both; with the pool's own number of steps they ask for the same."""
    refused = await client.refusal(Request(prompt="a red circle", exact=True, num_inference_steps=steps))
    assert refused.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert violated_fields(refused) == ["num_inference_steps"]
    both = await client.done(Request(prompt="a red circle", exact=True, num_inference_steps=20))
    assert both.served.num_inference_steps == 20


async def test_seed_is_drawn_and_told_when_left_out(client: Client) -> None:
    """Two requests without a seed get different ones, and learn which."""
    seeds = {(await client.done(Request(prompt="a red circle"))).seed for _ in range(3)}
    assert len(seeds) == 3


async def test_explain_agrees_with_generate(client: Client) -> None:
    """Explain's level and reason are the ones Generate then serves, and it names a worker."""
    request = Request(prompt="a small green ring at the top on a plain pink wall", seed=1)
    explained = await client.stub.Explain(gateway_pb2.ExplainRequest(request=request), timeout=WITHIN_S)
    accepted = (await client.events(request))[0].accepted
    assert explained.decision == accepted.decision
    assert explained.worker.startswith("sim-")
    assert [entry.level.num_inference_steps for entry in explained.levels] == [20, 10, 20]
    assert [entry.eligible for entry in explained.levels] == [True, True, False]
    assert explained.levels[2].reason == "NoNeighbour"


async def test_quality_floor_makes_levels_ineligible(client: Client) -> None:
    """A request may raise the pool's floor: the short schedule (95 %) falls out at 96."""
    request = Request(prompt="a red circle", min_quality_percent=96)
    explained = await client.stub.Explain(gateway_pb2.ExplainRequest(request=request), timeout=WITHIN_S)
    assert explained.levels[1].reason == "BelowQualityFloor"


async def test_same_request_id_draws_once(client: Client) -> None:
    """Two calls at once and one later with the same id get the same result, marked as replayed."""
    request = Request(prompt="a red circle", request_id="once")
    first, second = await asyncio.gather(client.events(request), client.events(request))
    third = await client.events(request)
    assert [events[-1].done.replayed for events in (first, second, third)].count(False) == 1
    assert len({events[-1].done.seed for events in (first, second, third)}) == 1
    assert third[:-1] == first[:-1]


async def test_request_id_of_another_request_is_refused(client: Client) -> None:
    """An id stands for one request; another one under it is the caller's mistake."""
    await client.done(Request(prompt="a red circle", request_id="taken"))
    error = await client.refusal(Request(prompt="a blue circle", request_id="taken"))
    assert error.code() is grpc.StatusCode.ALREADY_EXISTS


async def test_request_ids_of_tenants_do_not_meet(client: Client) -> None:
    """The same id of another tenant is another request."""
    request = Request(prompt="a red circle", request_id="mine")
    one = await client.done(request, tenant="one")
    other = await client.done(request, tenant="other")
    assert not other.replayed
    assert one.seed != other.seed


async def test_local_mode_says_loudly_that_nothing_is_protected(pool: LocalPool) -> None:
    """Whoever reads the log of a gateway that believes headers must see it."""
    assert pool.gateway is not None
    assert "SECURITY IS OFF (--local)" in pool.gateway.log_path.read_text()


async def test_malformed_tenant_is_unauthenticated(client: Client) -> None:
    """A tenant's name that cannot be one is refused before anything is done."""
    error = await client.refusal(Request(prompt="a red circle"), tenant="no spaces please")
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_health_and_reflection_answer(pool: LocalPool, client: Client) -> None:
    """What probes and grpcurl speak: SERVING, and the service's name."""
    from grpc_health.v1 import health_pb2, health_pb2_grpc
    from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

    health = health_pb2_grpc.HealthStub(client.channel)
    answer = await health.Check(health_pb2.HealthCheckRequest(service="t2iserving.v1.TextToImage"), timeout=WITHIN_S)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    reflection = reflection_pb2_grpc.ServerReflectionStub(client.channel)
    asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    async for response in reflection.ServerReflectionInfo(asked, timeout=WITHIN_S):
        names = [service.name for service in response.list_services_response.service]
        assert "t2iserving.v1.TextToImage" in names
        break
    assert pool.address


async def test_several_images_have_seeds_in_a_row_and_come_whole(client: Client) -> None:
    """Each of four images has all of its events in order, and the seed that draws it again alone."""
    events = await client.events(Request(prompt="a red circle", seed=2**64 - 2, num_images=4))
    by_image = [[event for event in events if event.image_index == index] for index in range(4)]
    assert sum(map(len, by_image)) == len(events)
    for image in by_image:
        assert list(dict.fromkeys(kinds(image))) == ["accepted", "progress", "image", "chunk", "done"]
        data = b"".join(event.chunk.data for event in image if event.HasField("chunk"))
        assert hashlib.sha256(data).digest() == next(event.image.sha256 for event in image if event.HasField("image"))
    assert [image[-1].done.seed for image in by_image] == [2**64 - 2, 2**64 - 1, 0, 1]


async def test_a_repeat_of_several_images_replays_them_all(client: Client) -> None:
    """The request id stands for all images of the call."""
    request = Request(prompt="a red circle", request_id="four", num_images=4)
    first, second = await client.events(request), await client.events(request)
    assert {event.done.seed for event in first if event.HasField("done")} == {
        event.done.seed for event in second if event.done.replayed
    }
