"""helm, and a real API server without our CRD: the chart brings its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from helm_chart import Helm
from kube_assets import AssetsError, ensure_assets
from kube_server import KubeServer, kube_server


def _assets() -> dict[str, Path]:
    try:
        return ensure_assets(lambda _: None)
    except AssetsError as error:
        pytest.fail(str(error), pytrace=False)


def pytest_collection_finish(session: pytest.Session) -> None:
    """A build takes minutes and a test's limit is short: build now. A failure is told by each test that needs helm."""
    if session.config.option.collectonly or not any("helm" in getattr(it, "fixturenames", ()) for it in session.items):
        return
    capture = session.config.pluginmanager.get_plugin("capturemanager")
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    assert capture is not None
    assert terminal is not None
    try:
        with capture.global_and_fixture_disabled():
            ensure_assets(lambda text: terminal.write_line(f"kube-assets: {text}"))
    except AssetsError as error:
        terminal.write_line(f"kube-assets: {error}", red=True)


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """helm without a cluster."""
    return Helm(_assets()["helm"], tmp_path_factory.mktemp("helm"))


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeServer]:
    """etcd and kube-apiserver, empty."""
    _assets()
    with kube_server(tmp_path_factory.mktemp("chart-kube"), crds=False) as server:
        yield server


@pytest.fixture(scope="session")
def cluster_helm(helm: Helm, cluster: KubeServer) -> Helm:
    """helm as the cluster's administrator."""
    return Helm(helm.program, helm.folder, cluster.kubeconfig)
