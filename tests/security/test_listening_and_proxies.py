"""Where servers listen, and which connections may ask a proxy: real sockets, a real gRPC client, a played proxy."""

import errno
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
import yaml
from kubernetes.aio.client import ApiClient
from kubernetes.aio.config import incluster_config
from kubernetes.aio.config.config_exception import ConfigException
from prometheus_client import CollectorRegistry

from recording_proxy import RecordingProxy
from t2i_operator.handlers import connection_of
from t2i_operator.metrics import OperatorMetrics
from t2i_operator.polling import DemandPoller
from t2i_runtime.errors import AddressUnusable
from t2i_runtime.grpc_options import client_options
from t2i_runtime.kube.client import open_client
from t2i_runtime.listening import listening_socket
from t2i_runtime.proxies import asks_environment, is_this_machine
from t2i_runtime.tls.transport import channel_opener

Open = Callable[[str], grpc.aio.Channel]


def greeted(host: str, listener: socket.socket) -> str:
    """The peer that the listener sees."""
    with socket.create_connection((host, listener.getsockname()[1]), timeout=60):
        accepted, peer = listener.accept()
        accepted.close()
        return str(peer[0])


@pytest.mark.parametrize("listen", ["[::]:0", ":0"])
def test_unspecified_address_takes_both_families(listen: str) -> None:
    """Whatever the kernel's own default is."""
    with listening_socket(listen) as listener:
        assert greeted("::1", listener) == "::1"
        assert greeted("127.0.0.1", listener) == "::ffff:127.0.0.1"


@pytest.mark.parametrize(("listen", "host"), [("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "::1")])
def test_named_address_is_the_only_one(listen: str, host: str) -> None:
    """One family stays one."""
    with listening_socket(listen) as listener:
        assert greeted(host, listener) == host


def test_kernel_without_ipv6_gets_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel is started with ipv6.disable=1: it knows no such family."""
    real = socket.socket

    def refusing(family: int, *arguments: Any) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return real(family, *arguments)

    monkeypatch.setattr("t2i_runtime.listening.socket.socket", refusing)
    with listening_socket("[::]:0") as listener:
        monkeypatch.undo()
        assert greeted("127.0.0.1", listener) == "127.0.0.1"


@pytest.mark.parametrize("listen", ["127.0.0.1:taken", "nowhere", "192.0.2.1:0", "127.0.0.1:99999"])
def test_unusable_address_is_told_in_a_sentence(listen: str) -> None:
    """The message names it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        asked = listen.replace("taken", str(taken.getsockname()[1]))
        with pytest.raises(AddressUnusable, match=f"cannot listen on {asked.replace('.', '[.]')}"):
            listening_socket(asked).close()


@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("127.0.0.1", True),
        ("127.8.0.1", True),
        ("::1", True),
        ("[::1]", True),
        ("::ffff:127.0.0.1", True),
        ("localhost", True),
        ("LOCALHOST.", True),
        ("pool.localhost", True),
        ("0.0.0.0", True),
        ("::", True),
        ("10.1.2.3", False),
        ("fd00::1", False),
        ("gateway.example.com", False),
        ("localhost.example.com", False),
        ("", False),
    ],
)
def test_this_machine_is_told_from_others(host: str, here: bool) -> None:
    """By name and by address of either family."""
    assert is_this_machine(host) is here


@pytest.mark.parametrize(
    ("url", "environment", "asked"),
    [
        ("https://api.example.com:6443", {"HTTPS_PROXY": "http://proxy:3128"}, True),
        ("https://api.example.com:6443", {}, False),
        ("https://api.example.com:6443", {"https_proxy": ""}, False),
        ("https://127.0.0.1:6443", {"https_proxy": "http://proxy:3128"}, False),
        ("https://[::1]:6443", {"https_proxy": "http://proxy:3128"}, False),
    ],
)
def test_environment_is_asked_for_other_machines(url: str, environment: Mapping[str, str], asked: bool) -> None:
    """Only where it names a proxy, too."""
    assert asks_environment(url, environment) is asked


def to_named_gateway(address: str) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(address, options=client_options(address))


@pytest.fixture
def surrounded(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Put a proxy into the environment, for everything."""

    def put(url: str) -> None:
        for variable in ("no_proxy", "NO_PROXY", "no_grpc_proxy", "KUBECONFIG"):
            monkeypatch.delenv(variable, raising=False)
        for variable in ("grpc_proxy", "http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"):
            monkeypatch.setenv(variable, url)

    return put


async def connected(open_channel: Open, address: str) -> None:
    """Try to connect, once; the proxy refuses, and nobody listens at the address."""
    async with open_channel(address) as channel:
        with suppress(grpc.aio.AioRpcError):
            await channel.unary_unary("/a.B/C")(b"", timeout=60)


@pytest.mark.parametrize(
    ("open_channel", "address", "asked"),
    [
        (channel_opener(None, "", ()), "127.0.0.1:9", False),
        (channel_opener(None, "", ()), "[::1]:9", False),
        (to_named_gateway, "127.0.0.1:9", False),
        (to_named_gateway, "localhost:9", False),
        (to_named_gateway, "dns:///localhost:9", False),
        (to_named_gateway, "ipv4:127.0.0.1:9", False),
        (to_named_gateway, "[::1]:9", False),
        (to_named_gateway, "gateway.invalid:443", True),
    ],
)
async def test_proxy_is_asked_for_named_gateways_elsewhere_only(
    open_channel: Open, address: str, asked: bool, surrounded: Callable[[str], None]
) -> None:
    """Inside the system and on this machine a proxy is not asked."""
    async with RecordingProxy() as proxy:
        surrounded(proxy.url)
        await connected(open_channel, address)
        assert any(f"CONNECT {address}" in line for line in proxy.asked) is asked
        assert bool(proxy.asked) is asked


async def test_operator_asks_gateways_directly(surrounded: Callable[[str], None]) -> None:
    """Pods of either family are reached by their own address."""

    ready = [{"type": "Ready", "status": "True"}]
    ports = [{"name": "control", "containerPort": 9}]
    pods = [
        {
            "metadata": {"name": f"p-gateway-{n}", "uid": str(n), "labels": {}},
            "spec": {"containers": [{"name": "gateway", "ports": ports}]},
            "status": {"podIP": address, "phase": "Running", "conditions": ready},
        }
        for n, address in enumerate(("127.0.0.1", "::1"))
    ]
    async with RecordingProxy() as proxy:
        surrounded(proxy.url)
        poller = DemandPoller(lambda _: None, OperatorMetrics(CollectorRegistry()))
        try:
            assert await poller.poll(pods) == ()
        finally:
            await poller.close()
        assert proxy.asked == []


def kubeconfig(folder: Path, server: str) -> Path:
    """A file that leads to this server."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.mark.parametrize(
    ("server", "asked"), [("http://127.0.0.1:9", False), ("http://[::1]:9", False), ("http://api.invalid:80", True)]
)
async def test_api_server_of_a_kubeconfig_may_be_behind_a_proxy(
    tmp_path: Path, server: str, asked: bool, surrounded: Callable[[str], None]
) -> None:
    """As kubectl has it; kopf's watches go the same way."""
    async with RecordingProxy() as proxy:
        surrounded(proxy.url)
        client = await open_client(kubeconfig(tmp_path, server))
        assert (await connection_of(client)).trust_env is asked
        await get_version(client)
        assert bool(proxy.asked) is asked


async def get_version(client: ApiClient) -> None:
    """Try to; nobody answers."""
    try:
        with suppress(aiohttp.ClientError, TimeoutError):
            await client.call_api("GET", f"{client.configuration.host}/version", _request_timeout=60)
    finally:
        await client.close()  # type: ignore[no-untyped-call]


@pytest.fixture
def in_pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is a service account, and no kubeconfig."""
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    (tmp_path / "token").write_text("t")
    (tmp_path / "ca.crt").write_text("c")
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(tmp_path / "ca.crt"))
    monkeypatch.setattr("ssl.create_default_context", lambda **_: None)  # the authority here is none
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00:10:96::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")


@pytest.mark.parametrize("user_first", [False, True], ids=["servers", "command line"])
@pytest.mark.usefixtures("in_pod")
async def test_own_api_server_of_a_pod_is_asked_directly(user_first: bool, surrounded: Callable[[str], None]) -> None:
    """By its service account: the address is the cluster's own, which no proxy knows. IPv6 gets its brackets."""
    surrounded("http://127.0.0.1:9")
    client = await open_client(user_first=user_first)
    try:
        assert client.configuration.host == "https://[fd00:10:96::1]:443"
        assert client.rest_client.pool_manager is None or not client.rest_client.pool_manager.trust_env
        assert client.configuration.client_session_kwargs == {"trust_env": False}
    finally:
        await client.close()


@pytest.mark.parametrize(("user_first", "host"), [(False, "https://[fd00:10:96::1]:443"), (True, "http://user:80")])
@pytest.mark.usefixtures("in_pod")
async def test_in_a_pod_a_kubeconfig_counts_for_the_command_line_alone(
    user_first: bool, host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path, "http://user:80")))
    async with await open_client(user_first=user_first) as client:
        assert client.configuration.host == host


@pytest.mark.usefixtures("in_pod")
async def test_a_kubeconfig_that_is_named_is_the_only_place(tmp_path: Path) -> None:
    async with await open_client(kubeconfig(tmp_path, "http://named:80")) as client:
        assert client.configuration.host == "http://named:80"
    with pytest.raises(ConfigException):
        await open_client(tmp_path / "none")
