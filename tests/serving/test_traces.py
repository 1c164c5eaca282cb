"""Traces: one tree from either door to the worker's steps, sent to a real receiver of OTLP. Nobody waits for it."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import httpx
import pytest
import pytest_asyncio

from otlp_receiver import OtlpReceiver, SentSpan, otlp_receiver, tree
from t2i_protos.v1 import gateway_pb2
from t2i_testing_kit.serving import WITHIN_S, Client, WritePool
from t2ictl.local_pool import LocalOptions, LocalPool

WORKER = "t2iserving.v1.Worker/Generate"
GRPC_DOOR = "t2iserving.v1.TextToImage/Generate"
HTTP_DOOR = "POST /v1/images/generations"
BELOW_DOOR = {"decide": {}, "queue": {}, "attempt": {WORKER: {"wait": {}, "denoise": {}, "image": {}, "latent": {}}}}
ALL_SPANS = 9  # the door's and those below
CALLER = bytes.fromhex("00f067aa0ba902b7")
SECRET_WORDS = "a lighthouse that nobody may read of"
pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module")]


@pytest.fixture(scope="module")
def environment() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        yield patch


@pytest.fixture(scope="module")
def options(write_pool: WritePool) -> LocalOptions:
    return replace(write_pool(workers=1), listen_http="127.0.0.1:0")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def receiver() -> AsyncIterator[OtlpReceiver]:
    async with otlp_receiver() as one:
        yield one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool(
    receiver: OtlpReceiver, options: LocalOptions, environment: pytest.MonkeyPatch
) -> AsyncIterator[LocalPool]:
    """A pool whose processes find the receiver as users name one: by OpenTelemetry's variables."""
    environment.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.address)
    async with LocalPool(options) as started:
        yield started


def traceparent() -> tuple[str, str]:
    """A trace of a caller, and the header that tells of it."""
    trace_id = secrets.token_hex(16)
    return trace_id, f"00-{trace_id}-{CALLER.hex()}-01"


def called(spans: list[SentSpan], name: str) -> SentSpan:
    """The only one of this name."""
    (found,) = [one for one in spans if one.span.name == name]
    return found


async def test_grpc_call_is_one_tree_from_door_to_steps(
    pool: LocalPool, client: Client, receiver: OtlpReceiver
) -> None:
    """Where a slow request spent its time is what a trace is for; each process adds its part to the caller's trace."""
    trace_id, header = traceparent()
    request = gateway_pb2.GenerateRequest(prompt=SECRET_WORDS, seed=7)
    call = client.stub.Generate(
        request, timeout=WITHIN_S, metadata=(("traceparent", header), ("tracestate", "vendor=1"))
    )
    assert [event async for event in call][-1].HasField("done")

    spans = await receiver.trace(trace_id, ALL_SPANS)

    assert tree(spans, CALLER) == {GRPC_DOOR: BELOW_DOOR}
    assert {one.process["service.name"] for one in spans} == {"t2i-gateway", "t2i-worker"}
    assert {one.process["t2i.pool"] for one in spans} == {"test"}
    assert all(one.span.trace_state == "vendor=1" for one in spans)
    assert called(spans, GRPC_DOOR).told["rpc.response.status_code"] == "OK"
    denoise = called(spans, "denoise")
    steps = [event for event in denoise.span.events if event.name == "step"]
    assert steps
    assert steps[-1].attributes[0].value.int_value == denoise.told["t2i.steps"] == 20
    assert called(spans, "attempt").told["t2i.worker"] == pool.workers[0].name


async def test_http_call_is_the_same_tree(pool: LocalPool, receiver: OtlpReceiver) -> None:
    """The doors share what lies behind them, so their traces differ in the door alone. Two images are two of each."""
    trace_id, header = traceparent()
    async with httpx.AsyncClient(base_url=f"http://{pool.http_address}", timeout=WITHIN_S) as http:
        body = {"prompt": SECRET_WORDS, "n": 2}
        answer = await http.post("/v1/images/generations", json=body, headers={"traceparent": header})
    assert answer.status_code == 200

    spans = await receiver.trace(trace_id, 1 + 2 * (ALL_SPANS - 1))

    assert tree(spans, CALLER) == {HTTP_DOOR: BELOW_DOOR}
    assert called(spans, HTTP_DOOR).told["http.response.status_code"] == 200
    assert len({one.told["t2i.seed"] for one in spans if one.span.name == "attempt"}) == 2


async def test_calls_without_a_trace_begin_one_each(client: Client, receiver: OtlpReceiver) -> None:
    """A span that stayed current after its call would gather the calls of others below it."""
    before = {one.trace_id for one in receiver.spans}
    for header in ((), (("traceparent", "00-broken"),)):
        call = client.stub.Generate(
            gateway_pb2.GenerateRequest(prompt="a red circle"), timeout=WITHIN_S, metadata=header
        )
        assert [event async for event in call]

    def doors(spans: list[SentSpan]) -> list[SentSpan]:
        return [one for one in spans if one.span.name == GRPC_DOOR and one.trace_id not in before]

    found = doors(await receiver.until(lambda spans: len(doors(spans)) == 2))
    assert {one.span.parent_span_id for one in found} == {b""}
    assert len({one.trace_id for one in found}) == 2


async def test_refusal_and_departure_end_their_spans(client: Client, receiver: OtlpReceiver) -> None:
    """What a client got wrong is no error of the pool; a stream that is given up must not leave its spans open."""
    wrong, header = traceparent()
    metadata = (("traceparent", header),)
    with pytest.raises(Exception, match="prompt"):
        await client.stub.Generate(gateway_pb2.GenerateRequest(), timeout=WITHIN_S, metadata=metadata).read()
    (refused,) = await receiver.trace(wrong, 1)
    assert refused.told["rpc.response.status_code"] == "INVALID_ARGUMENT"
    assert refused.span.status.code == 0

    gone, header = traceparent()
    request = gateway_pb2.GenerateRequest(prompt="a red circle")
    call = client.stub.Generate(request, timeout=WITHIN_S, metadata=(("traceparent", header),))
    await call.read()
    call.cancel()
    ended = {"decide", GRPC_DOOR}  # gateway and worker send theirs in no order
    await receiver.until(lambda spans: ended <= {one.span.name for one in spans if one.trace_id == gone})


async def test_no_prompt_reaches_the_collector(pool: LocalPool, client: Client, receiver: OtlpReceiver) -> None:
    """A collector has readers of its own; the prompts of the tests before are in none of its bytes."""
    failing = gateway_pb2.GenerateRequest(prompt=SECRET_WORDS, num_inference_steps=9999)
    await client.refusal(failing)
    request = gateway_pb2.GenerateRequest(prompt=SECRET_WORDS, negative_prompt=SECRET_WORDS, seed=7)
    trace_id, header = traceparent()
    call = client.stub.Generate(request, timeout=WITHIN_S, metadata=(("traceparent", header),))
    assert [event async for event in call]
    await receiver.trace(trace_id, ALL_SPANS)
    assert len(receiver.raw) > 1000
    assert b"lighthouse" not in receiver.raw


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf", "smoke signals"])
async def test_pool_serves_while_the_collector_is_away(
    protocol: str, options: LocalOptions, environment: pytest.MonkeyPatch
) -> None:
    """Nobody listens there, and few spans fit into the queue: requests must be served and the end must not wait."""
    environment.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    environment.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    environment.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "4")
    environment.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2")
    try:
        async with LocalPool(options) as alone:
            client = Client(alone.address)
            requests = (client.done(gateway_pb2.GenerateRequest(prompt=f"a red circle {n}")) for n in range(8))
            assert all(done.seed for done in await asyncio.gather(*requests))
            await client.channel.close()
        ended = [one.process for one in (alone.gateway, *alone.workers) if one is not None]
        assert [process.returncode for process in ended if process is not None] == [0, 0]
    finally:
        for name in ("PROTOCOL", "ENDPOINT"):
            environment.delenv(f"OTEL_EXPORTER_OTLP_{name}")
        environment.delenv("OTEL_BSP_MAX_QUEUE_SIZE")
        environment.delenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE")
