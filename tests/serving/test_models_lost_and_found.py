"""Two models as processes behind a gateway: what was asked of a killed worker's model is drawn by the other one."""

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from t2i_policy.model_section import ModelSection
from t2i_policy.profile import BandLoss
from t2i_policy.profile_document import render_profile
from t2i_protos.v1 import gateway_pb2, level_pb2, worker_pb2, worker_pb2_grpc
from t2i_testing_kit.serving import WITHIN_S, Client, load_until, make_profile, metric, until
from t2ictl.local_pool import LocalOptions, LocalPool
from two_models import HARMLESS, TURBO, write_two_models

pytestmark = [pytest.mark.process, pytest.mark.asyncio]
Request = gateway_pb2.GenerateRequest
CAP, SMALL_STEP_S, LARGE_STEP_S = 4, 1.5, 0.35  # six seconds of the small model in which to break things
READY = 't2i_gateway_model_ready_workers{model="turbo"}'


def slow_models(folder: Path) -> LocalOptions:
    """The small model takes a little less of a worker, so it is wanted."""
    bands = (BandLoss(TURBO, -1.0, 1.01, HARMLESS, 0.0, 100),)
    section = ModelSection("turbo", 4, (SMALL_STEP_S,) * CAP, 0.0, bands)
    options = write_two_models(folder)
    profile = replace(make_profile((LARGE_STEP_S,) * CAP), models=(section,))
    (folder / "profile.json").write_text(render_profile(profile))
    return options


async def test_killed_model_loses_no_request(tmp_path: Path) -> None:
    """Those in its batch and those that wait for it; the one that is started anew serves again."""
    async with LocalPool(slow_models(tmp_path)) as pool:
        watching = asyncio.create_task(pool.supervise())
        client, small = Client(pool.address), pool.workers[1]
        asked = [asyncio.create_task(client.done(Request(prompt=f"circle {n}"))) for n in range(2 * CAP)]
        await load_until(small.address, lambda load: load.running == CAP)
        assert small.process is not None
        assert pool.gateway is not None
        os.kill(small.process.pid, signal.SIGKILL)
        done = await asyncio.gather(*asked)
        assert {(one.served.model, one.served.num_inference_steps) for one in done} == {("", 20)}
        assert [one.reason for one in done].count("ModelGone") >= CAP
        gateway = pool.gateway
        await until("it is back", lambda: metric(gateway, READY), lambda count: count == 1)
        assert (await client.done(Request(prompt="a circle"))).served == level_pb2.Level(
            num_inference_steps=4, model="turbo"
        )
        watching.cancel()
        await asyncio.wait([watching])


async def test_worker_that_is_told_to_hold_another_model_serves_it_behind_the_gateway(tmp_path: Path) -> None:
    """Requests go on meanwhile, by whoever is there for them."""
    async with LocalPool(write_two_models(tmp_path, moves="Reload")) as pool:
        client, gateway = Client(pool.address), pool.gateway
        assert gateway is not None
        for revision, model in enumerate(("", "turbo"), start=1):
            async with grpc.aio.insecure_channel(pool.workers[1].address) as channel:
                order = worker_pb2.HoldModelRequest(model=model, revision=revision)
                await worker_pb2_grpc.WorkerStub(channel).HoldModel(order, timeout=WITHIN_S)
            asked = [asyncio.create_task(client.done(Request(prompt=f"circle {n}"))) for n in range(2 * CAP)]
            await until("it is there", lambda: metric(gateway, READY), lambda count, held=model: count == bool(held))
            await asyncio.gather(*asked)
            assert (await client.done(Request(prompt="a circle"))).served.model == model
