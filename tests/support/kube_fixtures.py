"""Fixtures of the real API server: `kube` (bare), `full_kube` (with controllers), and a fresh namespace in each.

The programs are looked for, and built if need be, after collection: a build takes minutes, a test's limit is short.
Without Go and `KUBEBUILDER_ASSETS` every test that asks for a server fails with what to install; none is skipped.
"""

import itertools
from collections.abc import Iterator

import pytest

from t2i_testing_kit.kube.assets import AssetsError, ensure_assets
from t2i_testing_kit.kube.server import KubeServer, kube_server

_numbers = itertools.count(1)
_NEED_SERVER = {"kube", "full_kube"}


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build the programs now if a test will need them."""
    needed = any(_NEED_SERVER & set(getattr(item, "fixturenames", ())) for item in session.items)
    if not needed or session.config.option.collectonly:
        return
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    capture = session.config.pluginmanager.get_plugin("capturemanager")
    assert terminal is not None
    assert capture is not None
    try:
        with capture.global_and_fixture_disabled():
            ensure_assets(lambda text: terminal.write_line(f"kube-assets: {text}"))
    except AssetsError as error:
        terminal.write_line(f"kube-assets: {error}", red=True)


def _serve(folders: pytest.TempPathFactory, name: str, controllers: bool) -> Iterator[KubeServer]:
    try:
        ensure_assets(lambda _: None)
    except AssetsError as error:
        pytest.fail(str(error), pytrace=False)
    with kube_server(folders.mktemp(name), controllers) as server:
        yield server


@pytest.fixture(scope="session")
def kube(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeServer]:
    """etcd and kube-apiserver: schemas, defaults, CEL, server-side apply, RBAC, watches. No controllers."""
    yield from _serve(tmp_path_factory, "kube", controllers=False)


@pytest.fixture(scope="session")
def full_kube(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeServer]:
    """The same with kube-controller-manager: garbage collection, StatefulSets, namespaces that finish deleting."""
    yield from _serve(tmp_path_factory, "full-kube", controllers=True)


def fresh_namespace(server: KubeServer) -> str:
    name = f"test-{next(_numbers)}"
    made = server.call("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    assert made.ok, made.message
    return name


@pytest.fixture
def namespace(kube: KubeServer) -> str:
    """An empty namespace on `kube`. It is not deleted: without controllers it could not end, and names never repeat."""
    return fresh_namespace(kube)


@pytest.fixture
def full_namespace(full_kube: KubeServer) -> Iterator[str]:
    """An empty namespace on `full_kube`, deleted after the test."""
    name = fresh_namespace(full_kube)
    yield name
    full_kube.call("DELETE", f"/api/v1/namespaces/{name}")
