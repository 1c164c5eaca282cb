"""Workers of two models in one pool, as processes: each says which it holds, and draws its levels alone."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
import yaml

from t2i_policy.band_loss import BandLoss
from t2i_policy.level import Level
from t2i_policy.model_section import ModelSection
from t2i_policy.profile_document import render_profile
from t2i_profiler.worker_client import holding_own_model
from t2i_protos.v1 import level_pb2, worker_pb2, worker_pb2_grpc
from t2i_testing_kit.serving import WITHIN_S, load_until, make_profile, metric
from t2ictl.errors import InputInvalid
from t2ictl.local_pool import LocalOptions, LocalPool

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module")]
EXAMPLE = Path(__file__).parents[2] / "examples" / "pool-two-models.yaml"
SECTION = ModelSection(
    "turbo", 4, (0.02,), 0.0, (BandLoss(Level(0, 4, model="turbo"), -1.0, 1.01, 0.1, 0.0, 100),), "t"
)
POOL = """
apiVersion: t2iserving.dev/v1alpha1
kind: T2IServingPool
metadata: {name: two}
spec:
  model: {source: "builtin://scenes", numInferenceSteps: 20, guidanceScalePercent: 200, width: 48, height: 48,
          precision: fp32}
  workerGroups:
  - {name: large, workers: 1, engine: simulated}
  - {name: small, workers: 1, engine: simulated, model: {name: turbo, source: "hf://a/turbo", numInferenceSteps: 4}}
"""


@pytest.fixture(scope="module")
def simulated_options(tmp_path_factory: pytest.TempPathFactory) -> LocalOptions:
    """The profile's steps take 100 ms, those of its section 20 ms."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "pool.yaml").write_text(POOL)
    profile = replace(make_profile((0.1, 0.15)), models=(SECTION,))
    (folder / "profile.json").write_text(render_profile(profile))
    return LocalOptions(folder / "pool.yaml", "127.0.0.1:0", folder, folder / "profile.json", models_dir=folder)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def simulated(simulated_options: LocalOptions) -> AsyncIterator[LocalPool]:
    async with LocalPool(simulated_options, with_gateway=False) as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def real(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalPool]:
    """Of the example, whose workers may move."""
    folder, document = tmp_path_factory.mktemp("real"), yaml.safe_load(EXAMPLE.read_text())
    document["spec"]["mix"] = {"moves": "Reload"}
    (folder / "pool.yaml").write_text(yaml.safe_dump(document))
    async with LocalPool(LocalOptions(folder / "pool.yaml", folder=folder), with_gateway=False) as started:
        yield started


async def described(address: str) -> worker_pb2.WorkerDescription:
    async with grpc.aio.insecure_channel(address) as channel:
        stub = worker_pb2_grpc.WorkerStub(channel)
        return await stub.Describe(worker_pb2.DescribeRequest(), timeout=WITHIN_S)


async def drawn(address: str, level: level_pb2.Level, guidance_scale: float = 1.0) -> level_pb2.Level:
    """The level that was served."""
    request = worker_pb2.WorkerGenerateRequest(
        prompt="a red circle", level=level, width=48, height=48, guidance_scale=guidance_scale
    )
    async with grpc.aio.insecure_channel(address) as channel:
        stub = worker_pb2_grpc.WorkerStub(channel)
        events = [event async for event in stub.Generate(request, timeout=WITHIN_S)]
    assert any(event.HasField("image") for event in events)
    return events[-1].finished.served


async def test_simulated_workers_take_the_times_of_their_model(simulated: LocalPool) -> None:
    """Those of the profile's section, with its batch sizes; digest and schedule are the model's."""
    large, small = [await load_until(worker.address, lambda load: load.ready) for worker in simulated.workers]
    assert [*large.step_ms] == [100.0, 150.0]
    assert [*small.step_ms] == [20.0]
    assert (large.model, small.model) == ("", "turbo")
    told = await described(simulated.workers[1].address)
    assert (told.model, told.model_digest, told.num_inference_steps) == ("turbo", "t", 4)


@pytest.mark.parametrize("kind", ["simulated", "real"])
async def test_worker_draws_levels_of_its_model_alone(kind: str, simulated: LocalPool, real: LocalPool) -> None:
    """One of another model is told to look elsewhere."""
    pool = {"simulated": simulated, "real": real}[kind]
    large, small = [worker.address for worker in pool.workers]
    name = (await described(small)).model
    quick = level_pb2.Level(num_inference_steps=4, model=name)
    assert (await drawn(small, quick)) == quick
    assert (await drawn(large, level_pb2.Level(num_inference_steps=12))).model == ""
    for address, level in ((large, quick), (small, level_pb2.Level(num_inference_steps=4))):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await drawn(address, level)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "level.model" in (refused.value.details() or "")


async def test_real_workers_hold_the_models_of_their_groups(real: LocalPool) -> None:
    """Weights, schedule and guidance are the group's own."""
    large, small = [await described(worker.address) for worker in real.workers]
    assert (large.model, large.num_inference_steps, large.guidance_scale) == ("", 12, 2.0)
    assert (small.model, small.num_inference_steps, small.guidance_scale) == ("distilled", 4, 1.0)
    assert large.model_digest != small.model_digest
    assert [real.model_of(worker) for worker in real.workers] == ["", "distilled"]


async def test_only_workers_of_the_own_model_are_measured(simulated: LocalPool) -> None:
    """`t2ictl profile` asks for levels of the pool's own model."""
    addresses = [worker.address for worker in simulated.workers]
    assert await holding_own_model(addresses) == addresses[:1]


async def test_profile_without_a_section_of_the_model_is_refused_before_anything_starts(
    simulated_options: LocalOptions, tmp_path: Path
) -> None:
    (tmp_path / "profile.json").write_text(render_profile(make_profile((0.1,))))
    with pytest.raises(InputInvalid, match="no section for 'turbo'"):
        async with LocalPool(replace(simulated_options, profile=tmp_path / "profile.json", folder=tmp_path)):
            pass


async def test_missing_model_of_a_group_is_told_before_anything_starts(tmp_path: Path) -> None:
    document = yaml.safe_load(EXAMPLE.read_text())
    document["spec"]["workerGroups"][1]["model"]["source"] = f"file://{tmp_path}/nowhere"
    (tmp_path / "pool.yaml").write_text(yaml.safe_dump(document))
    with pytest.raises(InputInvalid, match=r"model distilled: .*nowhere"):
        async with LocalPool(LocalOptions(tmp_path / "pool.yaml", folder=tmp_path), with_gateway=False):
            pass


async def hold(address: str, model: str, revision: int = 1) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        request = worker_pb2.HoldModelRequest(model=model, revision=revision)
        await worker_pb2_grpc.WorkerStub(channel).HoldModel(request, timeout=WITHIN_S)


async def test_worker_holds_another_model_by_order_and_the_one_before_again(real: LocalPool) -> None:
    """In the same process. It tells the model and its facts, draws its levels, and counts what that took."""
    worker = real.workers[0]
    quick = level_pb2.Level(num_inference_steps=4, model="distilled")
    await hold(worker.address, "distilled", 1)
    await load_until(worker.address, lambda load: load.ready and load.model == "distilled")
    told = await described(worker.address)
    assert (told.model, told.num_inference_steps) == ("distilled", 4)
    assert told.model_digest == (await described(real.workers[1].address)).model_digest
    assert await drawn(worker.address, quick) == quick
    await hold(worker.address, "", 2)
    await load_until(worker.address, lambda load: load.ready and not load.model)
    assert (await described(worker.address)).num_inference_steps == 12
    assert await metric(worker, 't2i_worker_model_reloads_total{outcome="kept"}') == 1
    assert await metric(worker, 't2i_worker_model_reloads_total{outcome="loaded"}') == 1
    assert await metric(worker, 't2i_worker_model_reload_seconds_total{outcome="loaded"}') > 0


async def test_order_for_an_unknown_model_and_one_in_a_pool_without_moves_are_refused(
    real: LocalPool, simulated: LocalPool
) -> None:
    cases = (
        (real, grpc.StatusCode.NOT_FOUND, "'distilled'"),
        (simulated, grpc.StatusCode.FAILED_PRECONDITION, "moves"),
    )
    for pool, code, said in cases:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await hold(pool.workers[0].address, "other")
        assert (refused.value.code(), said in (refused.value.details() or "")) == (code, True)


async def test_signal_during_a_change_ends_the_worker_cleanly(real: LocalPool) -> None:
    """The model is still being loaded; the process neither waits for it nor counts as failed."""
    worker = real.workers[1]
    await hold(worker.address, "", 1)
    await load_until(worker.address, lambda load: not load.ready)
    await worker.stop(WITHIN_S)
    assert worker.process is not None
    assert worker.process.returncode == 0
