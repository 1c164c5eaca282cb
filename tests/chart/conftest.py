"""The real helm program. Servers come from kube_fixtures; `kube` has our CRD already."""

from pathlib import Path

import pytest

from helm_chart import Helm
from t2i_testing_kit.kube.assets import AssetsError, ensure_assets


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
