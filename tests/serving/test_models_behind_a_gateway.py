"""A gateway before workers of two models: who draws what, who is asked for by name, and what a lost model costs."""

import asyncio
import json
import re
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.rpc import error_details_pb2

from failing_workers import CAP, FailingWorker, gateway_of
from t2i_protos.v1 import drawing_pb2, gateway_pb2, level_pb2
from t2i_testing_kit.serving import WITHIN_S, Client, detail, metric, metrics_text, until, violated_fields
from t2ictl.processes import ServerProcess
from two_models import HARMLESS, SOME, large, small, write_two_models

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module")]
Request = gateway_pb2.GenerateRequest
EXACT, TURBO = level_pb2.Level(num_inference_steps=20), level_pb2.Level(num_inference_steps=4, model="turbo")
INVALID = grpc.StatusCode.INVALID_ARGUMENT
READY = 't2i_gateway_model_ready_workers{model="turbo"}'
WAITING = 't2i_gateway_model_queued_requests{model="turbo"}'


@dataclass
class Served:
    """A gateway, its client, and a worker of each model."""

    gateway: ServerProcess
    client: Client
    large: FailingWorker
    small: FailingWorker


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=[HARMLESS, SOME], ids=["harmless", "some loss"])
async def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    own, other = large(), small()
    options = write_two_models(tmp_path_factory.mktemp("two"), request.param)
    async with gateway_of(options, [own, other], ("--listen-http", "127.0.0.1:0")) as gateway:
        client = Client(gateway.address)
        yield Served(gateway, client, own, other)
        await client.channel.close()


def losing(loss: float) -> pytest.MarkDecorator:
    """For a pool whose small model loses so much."""
    return pytest.mark.parametrize("served", [loss], indirect=True)


def over_http(gateway: ServerProcess, path: str, body: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
    """Status and answer."""
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(f"http://{gateway.http_address}{path}", data, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(asked, timeout=WITHIN_S) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


@losing(HARMLESS)
async def test_harmless_model_draws_with_its_own_guidance_and_is_named(served: Served) -> None:
    """In the answer, in the file's notes, in the metrics; nothing is said of latents, which are of the pool's model."""
    events = await served.client.events(Request(prompt="a red circle"))
    done, asked = events[-1].done, served.small.asked[-1]
    assert events[0].accepted.decision.reason == "OtherModel"
    assert done.served == TURBO
    assert (done.reproduction.model, done.reproduction.num_inference_steps) == ("turbo", 4)
    assert (asked.level, asked.guidance_scale, asked.file_notes.model) == (TURBO, 1.0, "turbo")
    assert not asked.HasField("source")
    assert not asked.HasField("sink")
    assert await metric(served.gateway, 't2i_gateway_model_images_total{model="turbo"}') >= 1
    same = await served.client.done(Request(prompt="a red circle", guidance_scale=2.0))
    assert (same.served, served.small.asked[-1].guidance_scale) == (TURBO, 1.0)


@losing(HARMLESS)
@pytest.mark.parametrize("more", [{"guidance_scale": 7.0}, {"negative_prompt": "blue"}], ids=["guidance", "negative"])
async def test_what_is_said_of_guidance_stays_with_the_reference(served: Served, more: dict[str, Any]) -> None:
    """It would ask the other model for what it was not trained for, or be ignored there."""
    request = Request(prompt="a red circle", **more)
    events = await served.client.events(request)
    asked = served.large.asked[-1]
    assert (events[-1].done.served, asked.negative_prompt) == (EXACT, request.negative_prompt)
    assert asked.guidance_scale == more.get("guidance_scale", 2.0)
    assert events[0].accepted.decision.expected_quality_percent == 100
    explained = await served.client.stub.Explain(gateway_pb2.ExplainRequest(request=request), timeout=WITHIN_S)
    assert {one.reason for one in explained.levels if one.level.model} == {"NotMeasured"}


async def test_guidance_that_a_demanded_model_was_not_measured_with_is_promised_nothing(served: Served) -> None:
    """A negative prompt is of use there. The model's own scale says nothing new."""
    unmeasured = Request(prompt="a red circle", model="turbo", guidance_scale=2.0, negative_prompt="blue")
    events = await served.client.events(unmeasured)
    decision, asked = events[0].accepted.decision, served.small.asked[-1]
    assert (events[-1].done.served, decision.reason) == (TURBO, "Unmeasured")
    assert not decision.HasField("expected_quality_percent")
    assert (asked.guidance_scale, asked.negative_prompt) == (2.0, "blue")
    events = await served.client.events(Request(prompt="a red circle", model="turbo", guidance_scale=1.0))
    assert events[0].accepted.decision.reason == "ModelRequested"
    assert events[0].accepted.decision.HasField("expected_quality_percent")


async def test_negative_prompt_for_a_model_without_guidance_is_refused_with_a_way_out(served: Served) -> None:
    request = Request(prompt="a red circle", model="turbo", negative_prompt="blue")
    error = await served.client.refusal(request)
    assert (error.code(), violated_fields(error)) == (INVALID, ["negative_prompt"])
    for part in ("turbo would ignore it", "without guidance", "leave it out", "ask for scenes"):
        assert part in str(error.details())
    body = {"prompt": "a red circle", "model": "turbo", "negative_prompt": "blue"}
    status, answer = await asyncio.to_thread(over_http, served.gateway, "/v1/images/generations", body)
    assert (status, answer["error"]["param"]) == (400, "negative_prompt")


@losing(SOME)
async def test_own_model_draws_while_it_has_room(served: Served) -> None:
    done = await served.client.done(Request(prompt="a red circle"))
    asked = served.large.asked[-1]
    assert done.served == EXACT
    assert (asked.guidance_scale, asked.file_notes.model) == (2.0, "builtin://scenes")
    assert done.reproduction.exact


@pytest.mark.parametrize(("model", "level"), [("turbo", TURBO), ("scenes", EXACT), ("reference", EXACT)])
async def test_demanded_model_draws(served: Served, model: str, level: level_pb2.Level) -> None:
    """Whatever would be chosen without."""
    assert (await served.client.done(Request(prompt="a blue square", model=model))).served == level


async def test_name_of_the_pool_demands_nothing(served: Served) -> None:
    prompt = "a green star"
    by_name, without = [await served.client.done(Request(prompt=prompt, model=model)) for model in ("two", "")]
    assert by_name.served == without.served


async def test_reproduction_draws_by_the_same_model_again(served: Served) -> None:
    done = await served.client.done(Request(prompt="a blue square", model="turbo"))
    told = done.reproduction
    again = Request(prompt="a blue square", model=told.model, num_inference_steps=told.num_inference_steps)
    first = served.small.asked[-1]
    again.seed = done.seed
    assert (await served.client.done(again)).served == done.served
    second = served.small.asked[-1]
    assert (first.seed, first.level, first.guidance_scale) == (second.seed, second.level, second.guidance_scale)


async def test_unknown_model_is_refused_with_the_names(served: Served) -> None:
    error = await served.client.refusal(Request(prompt="a", model="lightning"))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert "two, scenes, reference or turbo" in (error.details() or "")
    status, answer = await asyncio.to_thread(
        over_http, served.gateway, "/v1/images/generations", {"prompt": "a", "model": "lightning"}
    )
    assert (status, answer["error"]["param"], answer["error"]["code"]) == (404, "model", "model_not_found")
    assert "turbo" in answer["error"]["message"]


@losing(SOME)
async def test_floor_holds_against_a_demand(served: Served) -> None:
    """The refusal has both figures and what to do; a floor that the model keeps is no matter."""
    error = await served.client.refusal(Request(prompt="a", model="turbo", min_quality_percent=98))
    assert (error.code(), violated_fields(error)) == (INVALID, ["model"])
    for part in ("95.0%", "98%", "lower min_quality_percent", "ask for scenes"):
        assert part in str(error.details())
    assert (await served.client.done(Request(prompt="a", model="turbo", min_quality_percent=94))).served == TURBO


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (Request(prompt="a", model="turbo", exact=True), "model"),
        (Request(prompt="a", model="turbo", num_inference_steps=4, min_quality_percent=90), "min_quality_percent"),
        (
            Request(
                prompt="a",
                model="turbo",
                drawing=drawing_pb2.Drawing(adapters=[drawing_pb2.AdapterUse(name="own-style")]),
            ),
            "drawing.adapters",
        ),
    ],
    ids=["exact", "floor of a fixed schedule", "adapter of another model"],
)
async def test_what_a_demanded_model_cannot_do_is_refused(served: Served, request_: Request, field: str) -> None:
    error = await served.client.refusal(request_)
    assert (error.code(), violated_fields(error)) == (INVALID, [field])


@pytest.mark.parametrize(("adapter", "model"), [("own-style", ""), ("turbo-style", "turbo")])
async def test_adapter_goes_to_the_model_that_has_it(served: Served, adapter: str, model: str) -> None:
    drawing = drawing_pb2.Drawing(adapters=[drawing_pb2.AdapterUse(name=adapter)])
    assert (await served.client.done(Request(prompt="a circle", drawing=drawing))).served.model == model


async def test_unmeasured_request_is_drawn_by_the_reference_or_by_whom_it_demands(served: Served) -> None:
    """Nobody promises what the other model makes of it."""
    drawing = drawing_pb2.Drawing(sampler="euler")
    assert (await served.client.done(Request(prompt="a circle", drawing=drawing))).served == EXACT
    events = await served.client.events(Request(prompt="a circle", drawing=drawing, model="turbo"))
    assert events[-1].done.served == TURBO
    assert not events[0].accepted.decision.HasField("expected_quality_percent")


async def test_explain_tells_the_levels_of_all_models(served: Served) -> None:
    request = Request(prompt="a red circle", model="scenes")
    answer = await served.client.stub.Explain(gateway_pb2.ExplainRequest(request=request), timeout=WITHIN_S)
    told = {(one.level.model, one.level.skipped_steps): one for one in answer.levels}
    assert {*told} == {("", 0), ("", 10), ("turbo", 0)}
    assert told["turbo", 0].reason == "ModelRequested"
    assert told["", 0].eligible
    assert answer.worker == "large"


async def test_http_lists_the_models_and_says_who_drew(served: Served) -> None:
    status, listed = await asyncio.to_thread(over_http, served.gateway, "/v1/models")
    cards = {card["id"]: card["t2i"] for card in listed["data"]}
    assert status == 200
    assert cards["two"] == {"any_of": ["scenes", "turbo"]}
    assert cards["turbo"] == {"model": "turbo", "is_reference": False, "num_inference_steps": 4, "guidance_scale": 1.0}
    assert cards["scenes"] == cards["reference"]
    assert cards["scenes"]["is_reference"]
    body = {"prompt": "a red circle", "model": "turbo"}
    _, answer = await asyncio.to_thread(over_http, served.gateway, "/v1/images/generations", body)
    told = answer["t2i"]["images"][0]
    assert told["served_level"]["model"] == "turbo"
    assert told["reproduction"] == {"seed": told["seed"], "num_inference_steps": 4, "model": "turbo"}
    body["model"] = "scenes"
    _, answer = await asyncio.to_thread(over_http, served.gateway, "/v1/images/generations", body)
    assert "model" not in answer["t2i"]["images"][0]["served_level"]


async def test_requests_of_a_model_that_goes_away_are_drawn_by_another(tmp_path: Path) -> None:
    """Those that run there and those that wait. Who demands it waits as long as in a pool of one model."""
    own, other = large(), small()
    other.may_draw.clear()
    async with gateway_of(write_two_models(tmp_path), [own, other]) as gateway:
        client = Client(gateway.address)
        asked = [asyncio.create_task(client.events(Request(prompt=f"circle {n}"))) for n in range(2 * CAP)]
        await until("some wait", lambda: metric(gateway, WAITING), lambda count: count == CAP)
        demanded = asyncio.create_task(client.refusal(Request(prompt="demanded", model="turbo")))
        await until("it waits too", lambda: metric(gateway, WAITING), lambda count: count == CAP + 1)
        other.ready = False
        await until("it is not ready", lambda: metric(gateway, READY), lambda count: count == 0)
        other.fails = lambda *_: grpc.StatusCode.UNAVAILABLE
        other.may_draw.set()
        drawn = [events[-1].done for events in await asyncio.gather(*asked)]
        assert [done.served for done in drawn] == [EXACT] * (2 * CAP)
        assert {done.reason for done in drawn} == {"ModelGone"}
        error = await demanded
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert "no worker that holds the model turbo" in (error.details() or "")
        await client.channel.close()


async def test_moved_requests_are_served_cheaper_or_told_at_once_that_they_are_late(tmp_path: Path) -> None:
    """As new ones would be: by what the other model can carry until their deadline. Nobody waits to be told."""
    own, other = large(), small()
    own.step_ms = 3000.0  # a minute for an exact image, half of it for a short one
    own.may_draw.clear()
    other.may_draw.clear()
    options = write_two_models(tmp_path)
    document = options.pool_file.read_text()
    options.pool_file.write_text(document.replace("{skippedSteps: 10}", "{numInferenceSteps: 10}"))
    async with gateway_of(options, [own, other]) as gateway:
        client, number = Client(gateway.address), 6 * CAP
        asked = [asyncio.create_task(answer_of(client, f"circle {n}", 100.0)) for n in range(number)]
        await until("some wait", lambda: metric(gateway, WAITING), lambda count: count == number - CAP)
        other.fails = lambda *_: grpc.StatusCode.UNAVAILABLE
        other.ready = False
        other.may_draw.set()
        refused_now = 't2i_gateway_refusals_total{reason="Overloaded"}'
        await until("some are told", lambda: metric(gateway, refused_now), lambda count: count > 0)
        own.may_draw.set()
        answers = await asyncio.gather(*asked)
        served = [one.served for one in answers if isinstance(one, gateway_pb2.Done)]
        refused = [one for one in answers if isinstance(one, grpc.aio.AioRpcError)]
        assert {(one.model, one.num_inference_steps) for one in served} == {("", 20), ("", 10)}
        assert {error.code() for error in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert all("that it was meant for are gone" in str(error.details()) for error in refused)
        turns = [detail(error, error_details_pb2.RetryInfo()).retry_delay.ToMilliseconds() for error in refused]
        assert all(turns)
        logged = await asyncio.to_thread((tmp_path / "gateway.log").read_text)
        assert re.search(r"request \w+ moves from the model turbo, whose workers are gone, to scenes", logged)
        assert logged.count("worker small lost a request") + logged.count("moves from the model turbo") < number
        await client.channel.close()


async def answer_of(client: Client, asked: str | Request, limit_s: float) -> gateway_pb2.Done | grpc.aio.AioRpcError:
    """How a request ends."""
    try:
        return await client.done(Request(prompt=asked) if isinstance(asked, str) else asked, limit_s)
    except grpc.aio.AioRpcError as error:
        return error


async def test_request_that_its_model_would_draw_too_late_is_drawn_by_an_idle_one(tmp_path: Path) -> None:
    """Its own model stands still. Who demands it, asks for exact or has a floor that the other breaks is refused."""
    own, other = large(), small()
    own.step_ms = 100.0  # two seconds for an image
    own.may_draw.clear()
    async with gateway_of(write_two_models(tmp_path, SOME), [own, other]) as gateway:
        client = Client(gateway.address)
        waiting = 't2i_gateway_model_queued_requests{model="scenes"}'
        busy = [asyncio.create_task(answer_of(client, f"circle {n}", 60.0)) for n in range(CAP)]
        await until("all are drawn", lambda: asyncio.sleep(0, own.running), lambda count: count == CAP)
        bound = [Request(prompt="bound", **more) for more in BOUND]
        refused = [asyncio.create_task(answer_of(client, one, 6.0)) for one in bound]
        moved = asyncio.create_task(answer_of(client, Request(prompt="moved"), 6.0))
        await until("they wait", lambda: metric(gateway, waiting), lambda count: count == len(BOUND) + 1)
        done = await moved
        assert isinstance(done, gateway_pb2.Done)
        assert (done.served, done.reason) == (TURBO, "Deadline")
        for error in await asyncio.gather(*refused):
            assert isinstance(error, grpc.aio.AioRpcError)
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "its turn did not come in time" in str(error.details())
        assert await metric(gateway, 't2i_gateway_refusals_total{reason="Overloaded"}') == len(BOUND)
        own.may_draw.set()
        assert all(isinstance(one, gateway_pb2.Done) for one in await asyncio.gather(*busy))
        await client.channel.close()


BOUND: tuple[dict[str, Any], ...] = ({"model": "scenes"}, {"exact": True}, {"min_quality_percent": 97})


async def test_full_queue_of_one_model_turns_nobody_away_whom_another_may_draw(tmp_path: Path) -> None:
    own, other = large(), small()
    own.may_draw.clear()
    options = write_two_models(tmp_path, SOME)
    options.pool_file.write_text(options.pool_file.read_text().replace("maxQueuedRequests: 64", "maxQueuedRequests: 0"))
    async with gateway_of(options, [own, other]) as gateway:
        client = Client(gateway.address)
        busy = [asyncio.create_task(answer_of(client, f"circle {n}", 60.0)) for n in range(CAP)]
        await until("all are drawn", lambda: asyncio.sleep(0, own.running), lambda count: count == CAP)
        request = Request(prompt="one more")
        explained = await client.stub.Explain(gateway_pb2.ExplainRequest(request=request), timeout=WITHIN_S)
        assert (explained.worker, explained.refusal, explained.decision.reason) == ("small", "", "Load")
        events = await client.events(request)
        assert (events[-1].done.served, events[-1].done.reason) == (TURBO, "Load")
        message = events[0].accepted.decision.message
        assert "under load, with less of a backlog there" in message, (
            "its own slack, of which nothing is gone, says nothing"
        )
        error = await client.refusal(Request(prompt="one more", model="scenes"))
        assert "QueueFull" in str(error.details())
        own.may_draw.set()
        await asyncio.gather(*busy)
        await client.channel.close()


async def test_without_a_worker_of_its_model_a_request_is_told_so(tmp_path: Path) -> None:
    """No deadline and no load was in the way."""
    own, other = large(), small()
    async with gateway_of(write_two_models(tmp_path, SOME), [own, other]) as gateway:
        client = Client(gateway.address)
        own.ready = False
        own_ready = 't2i_gateway_model_ready_workers{model="scenes"}'
        await until("it is gone", lambda: metric(gateway, own_ready), lambda count: count == 0)
        events = await client.events(Request(prompt="a circle"))
        decision = events[0].accepted.decision
        assert (events[-1].done.served, events[-1].done.reason, decision.reason) == (TURBO, "ModelGone", "ModelGone")
        assert "no ready worker holds the model that it was meant for" in decision.message
        for more, reason in (({"exact": True}, "ExactRequested"), ({"guidance_scale": 7.0}, "NoNeighbour")):
            request = Request(prompt="a circle", **more)
            explained = await client.stub.Explain(gateway_pb2.ExplainRequest(request=request), timeout=WITHIN_S)
            assert (explained.decision.reason, explained.decision.served) == (reason, EXACT)
            assert explained.refusal.startswith("NoWorkers")
        await client.channel.close()


async def test_request_that_fails_on_all_workers_of_its_model_is_drawn_by_another(tmp_path: Path) -> None:
    own, other = large(), small()
    other.fails = lambda *_: grpc.StatusCode.INTERNAL
    async with gateway_of(write_two_models(tmp_path), [own, other]) as gateway:
        client = Client(gateway.address)
        done = await client.done(Request(prompt="a circle"))
        assert (done.served, done.retries) == (EXACT, 1)
        await client.channel.close()


async def test_worker_that_changed_its_model_is_described_anew(tmp_path: Path) -> None:
    """It is of no use while it loads, and is neither silent nor stuck."""
    own, other = large(), small()
    async with gateway_of(write_two_models(tmp_path), [own, other]) as gateway:
        client = Client(gateway.address)
        own_ready = 't2i_gateway_model_ready_workers{model="scenes"}'
        other.model, other.ready = "", False
        await until("it left its model", lambda: metric(gateway, READY), lambda count: count == 0)
        assert (await client.done(Request(prompt="a circle"))).served == EXACT
        other.ready = True
        await until("it has another", lambda: metric(gateway, own_ready), lambda count: count == 2)
        assert (await client.done(Request(prompt="a circle"))).served == EXACT
        other.model, other.ready = "turbo", True  # at once, as a worker that was restarted
        await until("it is back", lambda: metric(gateway, READY), lambda count: count == 1)
        assert (await client.done(Request(prompt="a circle"))).served == TURBO
        assert "worker_ejections_total{" not in await asyncio.to_thread(metrics_text, gateway)
        await client.channel.close()
