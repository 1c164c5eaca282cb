"""Every port of a gateway and a worker, as the operator has them listen, with a proxy in the environment that leads
nowhere: both families of addresses, pinging clients, reflection.
"""

import asyncio
import socket
import urllib.request
from collections.abc import AsyncIterator
from dataclasses import dataclass

import grpc
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from http2_relay import Http2Relay
from t2i_testing_kit.programs import free_ports
from t2i_testing_kit.serving import WritePool
from t2ictl.processes import ServerProcess

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module")]
NOWHERE = "http://127.0.0.1:9"
PORTS = ("gateway", "control", "worker", "health")
HOSTS = ("127.0.0.1", "[::1]")
#: The eagerest of ordinary clients. gRPC's servers cut off after the third ping that comes too early.
EAGER = (
    ("grpc.keepalive_time_ms", 1000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
)
ENOUGH = 6
LIMIT_S = 60.0


@dataclass(frozen=True)
class Ports:
    """Numbers of gRPC ports by name, and of the ports of metrics."""

    grpc: dict[str, int]
    metrics: tuple[int, int]

    def channel(self, name: str, host: str = "127.0.0.1") -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(f"{host}:{self.grpc[name]}", options=EAGER[-2:])


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ports(write_pool: WritePool) -> AsyncIterator[Ports]:
    """One worker and one gateway."""
    options = write_pool(workers=1)
    assert options.folder is not None
    control, health = free_ports(2)
    shared = ["--pool", str(options.pool_file), "--profile", str(options.profile), "--listen", "[::]:0"]
    shared += ["--metrics-listen", "[::]:0"]
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("http_proxy", "grpc_proxy", "https_proxy"):
            patch.setenv(variable, NOWHERE)
        patch.delenv("no_proxy", raising=False)
        own = ["--group", "sim", "--name", "sim-0", "--health-listen", f"[::]:{health}"]
        worker = ServerProcess("w", "t2i_worker", [*shared, *own], options.folder)
        try:
            await worker.start()
            await worker.wait_ready(LIMIT_S)
            place = f"127.0.0.1:{port_of(worker.address)}"
            own = ["--workers", place, "--local", "--control-listen", f"[::]:{control}"]
            gateway = ServerProcess("g", "t2i_gateway", [*shared, *own], options.folder)
            try:
                await gateway.start()
                await gateway.wait_ready(LIMIT_S)
                numbers = (port_of(gateway.address), control, port_of(worker.address), health)
                scraped = (port_of(gateway.metrics_address), port_of(worker.metrics_address))
                yield Ports(dict(zip(PORTS, numbers, strict=True)), scraped)
            finally:
                await gateway.stop(LIMIT_S)
        finally:
            await worker.stop(LIMIT_S)


async def test_gateway_finds_its_worker_past_a_proxy(ports: Ports) -> None:
    """A proxy of the environment is the way out of a site; it knows no worker."""
    async with ports.channel("gateway") as channel:
        watching = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=LIMIT_S)
        async for answer in watching:
            if answer.status == health_pb2.HealthCheckResponse.SERVING:
                break


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("name", PORTS)
async def test_grpc_port_takes_both_families(ports: Ports, name: str, host: str) -> None:
    """Pods of a cluster have addresses of one family or of both."""
    async with ports.channel(name, host) as channel:
        await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=LIMIT_S)


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("index", [0, 1], ids=["gateway", "worker"])
async def test_metrics_take_both_families(ports: Ports, index: int, host: str) -> None:
    """Prometheus comes by the pod's address."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    url = f"http://{host}:{ports.metrics[index]}/metrics"
    text = await asyncio.to_thread(lambda: direct.open(url, timeout=LIMIT_S).read().decode())
    assert "# HELP" in text


async def told_off(address: str, waits: bool) -> list[str]:
    """What the server says to a client that pings, while its request waits or without one."""
    async with Http2Relay(address) as relay, grpc.aio.insecure_channel(relay.address, options=EAGER) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        await stub.Check(health_pb2.HealthCheckRequest(), timeout=LIMIT_S)
        call = stub.Watch(health_pb2.HealthCheckRequest()) if waits else None
        async with asyncio.timeout(LIMIT_S):
            await relay.pinged_or_told_off(relay.pings + ENOUGH)
        if call is not None:
            call.cancel()
        return relay.goaways


async def test_client_that_pings_is_not_cut_off(ports: Ports) -> None:
    """Clients ping to keep what lies between from forgetting an idle connection; Go's do so every 10 s."""
    cases = [(name, waits) for name in PORTS for waits in (True, False)]
    answers = await asyncio.gather(*(told_off(f"127.0.0.1:{ports.grpc[name]}", waits) for name, waits in cases))
    assert dict(zip(cases, answers, strict=True)) == {case: [] for case in cases}


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
@pytest.mark.parametrize(
    ("name", "service"), [("gateway", "t2iserving.v1.TextToImage"), ("worker", "t2iserving.v1.Worker")]
)
async def test_reflection_speaks_both_versions(ports: Ports, name: str, service: str, version: str) -> None:
    """Tools list the services, then ask for the file of each, reflection's own as well."""
    own = f"grpc.reflection.{version}.ServerReflection"
    async with ports.channel(name) as channel:
        ask = channel.stream_stream(
            f"/{own}/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        call = ask(timeout=LIMIT_S)
        await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        listed = [found.name for found in (await call.read()).list_services_response.service]
        assert {service, own, "grpc.health.v1.Health"} <= set(listed)
        for one in listed:
            await call.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol=one))
            file = (await call.read()).file_descriptor_response.file_descriptor_proto[0]
            assert one.rpartition(".")[0].encode() in file
        await call.done_writing()


@pytest.mark.parametrize("flag", ["--listen", "--metrics-listen", "--health-listen", "--control-listen"])
async def test_port_in_use_is_told_in_a_sentence(write_pool: WritePool, flag: str) -> None:
    """No traceback for what the user of the machine can mend."""
    options = write_pool(workers=1)
    assert options.folder is not None
    own = ["--workers", "127.0.0.1:9", "--local"] if flag == "--control-listen" else ["--group", "sim", "--name", "w"]
    module = "t2i_gateway" if flag == "--control-listen" else "t2i_worker"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        own += ["--pool", str(options.pool_file), "--profile", str(options.profile), flag, place]
        process = ServerProcess("p", module, own, options.folder)
        await process.start()
        assert process.process is not None
        async with asyncio.timeout(LIMIT_S):
            assert await process.process.wait() == 2
    assert f"cannot listen on {place}" in process.complaint()
    assert "Traceback" not in process.log_path.read_text()
