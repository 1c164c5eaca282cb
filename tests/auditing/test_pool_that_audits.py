"""A whole local pool with spec.quality: images are audited, nobody notices, and promises follow what is measured."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest
import pytest_asyncio

from t2i_policy.backoff import Backoff
from t2i_policy.judge_record import JudgeRecord
from t2i_policy.profile_document import parse_profile, render_profile
from t2i_protos.v1 import auditor_pb2, auditor_pb2_grpc, gateway_pb2
from t2i_scenes import caption, sample_scene
from t2i_testing_kit.serving import WITHIN_S, Client, PoolFiles, metric, metrics_text, until
from t2ictl import local_pool
from t2ictl.errors import StartFailed
from t2ictl.local_pool import LocalOptions, LocalPool

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module")]
NUM_IMAGES = 24
#: The short schedule counts as harmless, so that an idle pool approximates.
MORE = """
  quality: {judge: scenes, auditPerMille: 1000, recalibrate: true}
"""


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> LocalOptions:
    folder = tmp_path_factory.mktemp("audited")
    written = PoolFiles(workers=1).write(folder)
    text = written.pool_file.read_text().replace(
        "minQualityPercent: 80", "minQualityPercent: 80, harmlessLossPercent: 9"
    )
    Path(written.pool_file).write_text(text.rstrip() + MORE)
    return written


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool(options: LocalOptions) -> AsyncIterator[LocalPool]:
    async with LocalPool(options) as started:
        await started.auditor_ready()
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(pool: LocalPool) -> AsyncIterator[list[gateway_pb2.GenerateEvent]]:
    """The events of the first image; by then all images are audited."""
    assert pool.gateway is not None
    rng, client = np.random.default_rng(5), Client(pool.address)
    prompts = [caption(sample_scene(rng), rng) for _ in range(NUM_IMAGES)]
    first: list[gateway_pb2.GenerateEvent] = []
    for prompt in prompts:
        first = first or await client.events(gateway_pb2.GenerateRequest(prompt=prompt))
        await client.events(gateway_pb2.GenerateRequest(prompt=prompt, seed=7))
    gateway = pool.gateway
    await until(
        "all images are audited",
        lambda: metric(gateway, 't2i_gateway_audits_total{outcome="judged"}'),
        lambda judged: judged == NUM_IMAGES + 1,
    )
    yield first
    await client.channel.close()


async def test_audits_count_as_nobodys_requests(pool: LocalPool, served: object) -> None:
    """Neither the gateway nor the worker mixes them with what clients asked for."""
    assert pool.gateway is not None
    gateway, worker = await gateway_and_worker(pool)
    assert "t2i_gateway_served_level_total" in gateway
    assert 't2i_gateway_served_level_total{level="0"}' not in gateway
    assert f't2i_gateway_served_level_total{{level="0/10"}} {NUM_IMAGES + 1:.1f}' in gateway
    assert f't2i_worker_requests_total{{code="OK"}} {NUM_IMAGES + 1:.1f}' in worker
    assert f't2i_worker_background_requests_total{{code="OK"}} {NUM_IMAGES + 1:.1f}' in worker


async def gateway_and_worker(pool: LocalPool) -> tuple[str, str]:
    assert pool.gateway is not None
    return metrics_text(pool.gateway), metrics_text(pool.workers[0])


async def test_the_operator_is_told_what_was_measured(pool: LocalPool, served: object) -> None:
    """The simulated worker draws gray: the approximated image is worth what the exact one is."""
    assert pool.auditor is not None
    async with grpc.aio.insecure_channel(pool.auditor.control_address) as channel:
        stub = auditor_pb2_grpc.AuditControlStub(channel)
        told = await stub.GetAudits(auditor_pb2.GetAuditsRequest(), timeout=WITHIN_S)
    assert (told.total_audits, told.measured_quality, told.trouble) == (NUM_IMAGES + 1, 1.0, "")
    assert [(one.level.num_inference_steps, one.similarity_min) for one in told.bands] == [(10, -1.0)]
    assert told.corrections.revision >= 1


async def test_clients_are_promised_what_was_measured(pool: LocalPool, served: list[gateway_pb2.GenerateEvent]) -> None:
    """The first image was promised the profile's 95 %; after its corrections it is more."""
    assert pool.gateway is not None
    gateway, client = pool.gateway, Client(pool.address)
    await until(
        "corrections are in force",
        lambda: metric(gateway, "t2i_gateway_corrections_revision"),
        lambda revision: revision >= 1,
    )
    later = await client.events(gateway_pb2.GenerateRequest(prompt="another prompt", seed=1))
    await client.channel.close()
    assert served[0].accepted.decision.expected_quality_percent == pytest.approx(95)
    assert later[0].accepted.decision.expected_quality_percent > 97


async def test_its_corrections_are_there_again_after_a_restart(pool: LocalPool, served: object) -> None:
    """In local mode they lie beside the logs."""
    assert pool.auditor is not None
    assert (pool.auditor.folder / "corrections.json").is_file()


async def test_a_pool_serves_while_its_judge_is_away(tmp_path: Path) -> None:
    """The auditor looks for the weights again and again; nobody waits for it."""
    away = with_judge("pickscore=file:///nowhere/judge", tmp_path, "\n  profileRef: {name: measured}")
    async with LocalPool(away) as pool:
        client = Client(pool.address)
        await client.events(gateway_pb2.GenerateRequest(prompt="a red circle"))
        await client.channel.close()
        assert pool.auditor is not None
        assert pool.auditor.running
        assert not pool.auditor.address
        assert pool.auditor.metrics_address  # it is told at the start


async def test_an_auditor_with_another_judge_is_told(tmp_path: Path) -> None:
    """Whether it ends before the pool serves or after it."""
    options = with_judge("scenes", tmp_path)
    assert options.profile is not None
    measured = parse_profile(options.profile.read_text())
    options.profile.write_text(render_profile(replace(measured, judge=JudgeRecord("pickscore", "", "7"))))
    said: list[str] = []
    heard = asyncio.Event()

    def report(name: str, state: str) -> None:
        if name == "auditor" and "judge" in state:
            said.append(state)
            heard.set()

    try:
        async with LocalPool(options, report) as pool:
            watching = asyncio.ensure_future(pool.supervise())
            async with asyncio.timeout(WITHIN_S):
                await heard.wait()
            watching.cancel()
            await asyncio.wait([watching])
    except StartFailed as error:
        said.append(str(error))
    assert "the auditor cannot start: " in said[0]
    assert "pickscore" in said[0]


async def test_an_auditor_is_started_again_until_it_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where starts fail, each is told with its reason; in the end it is at its old addresses."""
    monkeypatch.setattr(local_pool, "RESTARTS", Backoff(0.01, 0.02))
    options = with_judge("scenes", tmp_path)
    failed_twice, ready_again = asyncio.Event(), asyncio.Event()
    said: list[str] = []

    def report(name: str, state: str) -> None:
        said.append(state)
        if sum("cannot start" in one for one in said) >= 2:
            failed_twice.set()
            if state == "ready":
                ready_again.set()

    local = LocalPool(options, report)
    local.pool, local._folder = local_pool.read_pool(options.pool_file), tmp_path / "running"
    local._folder.mkdir()
    auditor = local._make_auditor()
    await local._bring_up(auditor)
    addresses = auditor.address, auditor.metrics_address, auditor.control_address
    aside = options.pool_file.rename(tmp_path / "aside.yaml")
    first = auditor.process
    assert first is not None
    keeping = asyncio.ensure_future(local._keep_up(auditor))
    try:
        os.kill(first.pid, signal.SIGKILL)
        async with asyncio.timeout(WITHIN_S):
            await failed_twice.wait()
        assert "ended with code -9" in said[2]
        assert "No such file" in next(one for one in said if "cannot start" in one)
        aside.rename(options.pool_file)
        async with asyncio.timeout(WITHIN_S):
            await ready_again.wait()
        assert (auditor.address, auditor.metrics_address, auditor.control_address) == addresses
        assert not keeping.done()
    finally:
        keeping.cancel()
        with suppress(asyncio.CancelledError):
            await keeping
        await auditor.stop(WITHIN_S)


async def test_a_restarted_worker_keeps_the_address_of_its_metrics(pool: LocalPool) -> None:
    """The address was printed once. Being started often does not lengthen its arguments."""
    worker = replace(pool.workers[0], arguments=[])
    worker.keep_addresses()
    worker.keep_addresses()
    assert worker.arguments == ["--listen", worker.address, "--metrics-listen", worker.metrics_address]


def with_judge(judge: str, folder: Path, more: str = "") -> LocalOptions:
    """A pool of one simulated worker that audits by it."""
    written = PoolFiles(workers=1).write(folder)
    text = written.pool_file.read_text().rstrip()
    written.pool_file.write_text(f'{text}\n  quality: {{judge: "{judge}"}}{more}\n')
    return written
