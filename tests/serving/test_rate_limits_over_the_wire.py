"""A tenant beyond its rate limit is told so, with a time to come back, before anything is drawn; another is not."""

import grpc
import pytest
from google.rpc import error_details_pb2

from t2i_protos.v1 import gateway_pb2
from t2i_testing_kit.serving import WITHIN_S, Client, WritePool, detail, metric
from t2ictl.local_pool import LocalOptions, LocalPool

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module")]
Request = gateway_pb2.GenerateRequest
LIMITS = (
    "rateLimits: {requestsPerMinute: 2, tenants: [{name: few-steps, requestsPerMinute: 100, stepsPerMinute: 21}, "
    "{name: many, requestsPerMinute: 1}]}"
)


@pytest.fixture(scope="module")
def options(write_pool: WritePool) -> LocalOptions:
    made = write_pool()
    text = made.pool_file.read_text().replace("gateway: {", f"gateway: {{{LIMITS}, ")
    made.pool_file.write_text(text)
    return made


async def test_third_request_of_a_minute_is_refused_and_another_tenant_served(client: Client, pool: LocalPool) -> None:
    """RESOURCE_EXHAUSTED, the reason for programs, and when to come back."""
    for seed in range(2):
        await client.done(Request(prompt="a red circle", seed=seed), tenant="alice")
    error = await client.refusal(Request(prompt="a red circle"), tenant="alice")
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert detail(error, error_details_pb2.ErrorInfo()).reason == "RateLimited"
    assert 0 < detail(error, error_details_pb2.RetryInfo()).retry_delay.ToSeconds() <= 60
    await client.done(Request(prompt="a red circle"), tenant="bob")
    assert pool.gateway is not None
    assert await metric(pool.gateway, 't2i_gateway_refusals_total{reason="RateLimited"}') == 1


async def test_explain_tells_the_refusal_and_uses_nothing_up(client: Client) -> None:
    metadata = (("x-t2i-tenant", "carol"),)
    asked = gateway_pb2.ExplainRequest(request=Request(prompt="a red circle"))
    for _ in range(5):
        answer = await client.stub.Explain(asked, timeout=WITHIN_S, metadata=metadata)
        assert answer.refusal == ""
    for _ in range(2):
        await client.done(asked.request, tenant="carol")
    answer = await client.stub.Explain(asked, timeout=WITHIN_S, metadata=metadata)
    assert answer.refusal.startswith("RateLimited: ")


async def test_steps_are_those_of_the_level_that_is_served(client: Client) -> None:
    """An exact image of 20 steps leaves room for none of 15, for the best part of a minute."""
    short = Request(prompt="a red circle", num_inference_steps=15)
    await client.done(Request(prompt="a red circle", exact=True), tenant="few-steps")
    error = await client.refusal(short, tenant="few-steps")
    assert "steps" in (error.details() or "")


async def test_images_of_a_request_count_each_and_are_admitted_together(client: Client) -> None:
    """More than a minute's worth in one request goes through once, and is paid off."""
    events = await client.events(Request(prompt="a red circle", num_images=3), tenant="many")
    assert sum(event.HasField("done") for event in events) == 3
    error = await client.refusal(Request(prompt="a red circle"), tenant="many")
    assert detail(error, error_details_pb2.RetryInfo()).retry_delay.ToSeconds() > 120
