"""Gateway and worker prove to each other who they are; nobody else gets a word with a worker."""

from contextlib import aclosing
from datetime import timedelta
from pathlib import Path

import grpc
import pytest

from t2i_protos.v1 import gateway_pb2, worker_pb2, worker_pb2_grpc
from t2i_testing_kit.mounted_secrets import TestAuthority, mount
from t2i_testing_kit.secured_pool import GATEWAY, TOKEN, WORKER, SecuredPool
from t2i_testing_kit.serving import WITHIN_S
from t2ictl.processes import ServerProcess

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module")]
STRANGERS = TestAuthority("strangers")
OF_WORKER = 't2i_worker_secret_reloads_total{outcome="in_force"}'
OF_GATEWAY = 't2i_gateway_secret_reloads_total{outcome="in_force",use="workers"}'


async def describe(pool: SecuredPool, certificate: dict[str, bytes] | None) -> str:
    """The code with which the worker answers a caller with this certificate; "" in clear."""
    if certificate is None:
        channel = grpc.aio.insecure_channel(pool.worker.address)
    else:
        own = grpc.ssl_channel_credentials(pool.inside.pem, certificate["tls.key"], certificate["tls.crt"])
        channel = grpc.aio.secure_channel(pool.worker.address, own, [("grpc.ssl_target_name_override", WORKER)])
    async with channel:
        try:
            await worker_pb2_grpc.WorkerStub(channel).Describe(worker_pb2.DescribeRequest(), timeout=WITHIN_S)
        except grpc.aio.AioRpcError as error:
            return error.code().name
    return "OK"


async def test_worker_hears_its_gateway_and_nobody_else(token_pool: SecuredPool) -> None:
    """Not in clear, not other authorities, not an expired one; not even another member of the pool."""
    issue = token_pool.inside.issue
    assert await describe(token_pool, issue(GATEWAY)) == "OK"
    assert await describe(token_pool, None) == "UNAVAILABLE"
    assert await describe(token_pool, STRANGERS.issue(GATEWAY)) == "UNAVAILABLE"
    assert await describe(token_pool, issue(GATEWAY, ends=timedelta(minutes=-1))) == "UNAVAILABLE"
    for names in ((WORKER,), ("q-gateway.ns.svc",), (f"x.{GATEWAY}",), ()):
        assert await describe(token_pool, issue(*names)) == "PERMISSION_DENIED", names


async def test_guard_stands_before_streams_and_reflection_too(token_pool: SecuredPool) -> None:
    """Every method of the port, those of others' services too. Streams send nothing: a write to one that the server has
    ended is a failure of its own."""
    certificate = token_pool.inside.issue(WORKER)
    own = grpc.ssl_channel_credentials(token_pool.inside.pem, certificate["tls.key"], certificate["tls.crt"])
    options = [("grpc.ssl_target_name_override", WORKER)]
    async with grpc.aio.secure_channel(token_pool.worker.address, own, options) as channel:
        calls = [
            channel.unary_stream("/t2iserving.v1.Worker/Generate")(b"", timeout=WITHIN_S),
            channel.unary_stream("/t2iserving.v1.Worker/WatchLoad")(b"", timeout=WITHIN_S),
            channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")(timeout=WITHIN_S),
            channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")(timeout=WITHIN_S),
            channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=WITHIN_S),
        ]
        assert [(await call.code()).name for call in calls] == ["PERMISSION_DENIED"] * 5


async def test_gateway_sends_nothing_to_a_false_worker(token_pool: SecuredPool, acme: str) -> None:
    """Right authority, another name: a worker of another pool that got hold of the address. Right again: it serves."""
    try:
        await swap(token_pool, {"w0-tls": token_pool.inside.issue("q-workers.ns.svc")})
        await swap(token_pool, {"worker-tls": token_pool.inside.issue(GATEWAY)})  # makes the gateway connect anew
        await token_pool.until("no worker", token_pool.ready_workers, lambda number: number == 0)
        assert (await token_pool.caller(acme).refusal())[0] == "UNAVAILABLE"
    finally:
        await swap(token_pool, {"w0-tls": token_pool.inside.issue(WORKER)})
    await token_pool.until("a worker", token_pool.ready_workers, lambda number: number == 1)
    await token_pool.caller(acme).quick()


async def test_running_image_is_finished_while_both_sides_change_authority(token_pool: SecuredPool, acme: str) -> None:
    """First both trust the new authority, then both use it, then nobody trusts the old: no request fails."""
    old, new = token_pool.inside, TestAuthority("new-inside")
    caller = token_pool.caller(acme)
    request = gateway_pb2.GenerateRequest(prompt="a red circle", seed=1, exact=True)
    call = caller.stub.Generate(request, timeout=WITHIN_S, metadata=caller.metadata)
    async with aclosing(call.__aiter__()) as events:
        assert (await anext(events)).HasField("accepted")
        for signer, trusted in ((old, (old, new)), (new, (old, new)), (new, (new,))):
            sides = {
                "w0-tls": signer.issue(WORKER, trusts=trusted),
                "worker-tls": signer.issue(GATEWAY, trusts=trusted),
            }
            await swap(token_pool, sides)
            await caller.quick()
        done = [event async for event in events][-1].done
    assert (done.served.num_inference_steps, done.retries) == (20, 0)
    await token_pool.until("a worker", token_pool.ready_workers, lambda number: number == 1)
    await caller.quick()
    token_pool.inside = new
    assert await describe(token_pool, old.issue(GATEWAY)) == "UNAVAILABLE"
    assert await describe(token_pool, new.issue(GATEWAY)) == "OK"


async def swap(pool: SecuredPool, secrets: dict[str, dict[str, bytes]]) -> None:
    """Swap mounted Secrets one after the other, and wait for each to be read."""
    for folder, files in secrets.items():
        process, name = (pool.worker, OF_WORKER) if folder == "w0-tls" else (pool.gateway, OF_GATEWAY)
        before = await pool.metric(name, process)
        mount(pool.folder / folder, files)
        await pool.until("read again", lambda: pool.metric(name, process), lambda now: now > before)  # noqa: B023


@pytest.mark.parametrize(
    ("missing", "field"),
    [
        ("tls/tls.crt", "security.gatewayTlsSecretName"),
        ("tokens/tokens", "security.tokensSecretName"),
        ("worker-tls/ca.crt", "security.gatewayClientTlsSecretName"),
    ],
)
async def test_missing_secret_ends_the_start_with_a_word_on_it(tmp_path: Path, missing: str, field: str) -> None:
    """The last line names the field and the next step; the operator shows it as the pool's condition."""
    pool = SecuredPool(tmp_path, TOKEN)
    pool.prepare()
    pool.worker.address = "127.0.0.1:1"
    (tmp_path / missing).unlink()
    gateway = ServerProcess("gateway", "t2i_gateway", pool.gateway_arguments(), tmp_path)
    await gateway.start()
    assert gateway.process is not None
    assert await gateway.process.wait() == 2
    last = gateway.log_tail().splitlines()[-1]
    assert f"the gateway cannot start: {field}: " in last
    assert "create the Secret with" in last


async def test_missing_certificate_of_a_worker_too(tmp_path: Path) -> None:
    """As above."""
    pool = SecuredPool(tmp_path, TOKEN)
    pool.prepare()
    (tmp_path / "w0-tls" / "tls.key").unlink()
    await pool.worker.start()
    assert pool.worker.process is not None
    assert await pool.worker.process.wait() == 2
    assert "the worker cannot start: security.workerTlsSecretName: " in pool.worker.log_tail().splitlines()[-1]
