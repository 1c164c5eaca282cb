"""One cluster and one release for all scenarios; a namespace with a pool for each file."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from e2e_cluster import Cluster, ClusterError, foreign_cluster, local_cluster
from e2e_pools import (
    RESTRICTED,
    SYSTEM,
    RunningPool,
    namespace_of,
    pool_document,
    running_pool,
    simulated_group,
    slowed_profile,
)
from local_node.places import NodeError, default_folder
from t2i_testing_kit.kube.assets import AssetsError, ensure_assets
from t2i_testing_kit.kube.sources import NODE_PROGRAMS, PROGRAMS

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "t2i-serving"
RELEASE = "t2i"


@pytest.fixture(scope="session")
def say(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """Progress, for people who wait."""
    terminal = pytestconfig.pluginmanager.get_plugin("terminalreporter")
    capture = pytestconfig.pluginmanager.get_plugin("capturemanager")
    assert terminal is not None
    assert capture is not None
    begin = time.monotonic()

    def line(text: str) -> None:
        with capture.global_and_fixture_disabled():
            terminal.write_line(f"e2e [{time.monotonic() - begin:4.0f} s] {text}")

    return line


@pytest.fixture(scope="session")
def cluster(say: Callable[[str], None]) -> Iterator[Cluster]:
    """The cluster that all scenarios share. Never skipped: without one every scenario fails with what to do."""
    kubeconfig = os.environ.get("E2E_KUBECONFIG")
    ours = str(default_folder() / "admin.kubeconfig")
    try:
        if kubeconfig and kubeconfig != ours:
            yield foreign_cluster(Path(kubeconfig), ensure_assets(say))
            return
        found = local_cluster(ensure_assets(say, (*PROGRAMS, *NODE_PROGRAMS)), say)
    except (AssetsError, NodeError) as error:
        pytest.fail(str(error), pytrace=False)
    try:
        yield found
    finally:
        if kubeconfig is None and found.local is not None:
            found.local.down()


@pytest.fixture(scope="session")
def release(cluster: Cluster, say: Callable[[str], None]) -> Iterator[str]:
    """The chart, installed in a namespace that admits restricted pods only; uninstalled at the end."""
    with suppress(ClusterError):
        cluster.kubectl("create", "namespace", SYSTEM)
    cluster.kubectl("label", "namespace", SYSTEM, RESTRICTED, "--overwrite")
    settings = [
        f"--set={name}.image.repository={image.repository},{name}.image.tag={image.tag}"
        for name, image in cluster.images.items()
    ]
    begin = time.monotonic()
    cluster.helm("upgrade", "--install", RELEASE, str(CHART), f"--namespace={SYSTEM}", "--wait", *settings)
    say(f"helm install --wait took {time.monotonic() - begin:.1f} s")
    yield RELEASE
    cluster.helm("uninstall", RELEASE, f"--namespace={SYSTEM}", "--wait")


@pytest.fixture
def enterable(cluster: Cluster) -> None:
    """For faults that enter the node: processes killed or frozen, packets dropped."""
    if cluster.local is None:
        pytest.skip("this fault must enter the node: unset E2E_KUBECONFIG, or give it what make e2e-up prints")


@pytest.fixture(scope="module")
def simulated(request: pytest.FixtureRequest, cluster: Cluster, release: str) -> Iterator[RunningPool]:
    """Three simulated workers, so many times as slow as the embedded model on an idle core as the (indirect) parameter
    says: at 4, 10 exact images/s with full batches.
    """
    with namespace_of(cluster, "t2i-faults") as namespace:
        document = pool_document("sim", workerGroups=[simulated_group(3)])
        with running_pool(cluster, namespace, document, slowed_profile(getattr(request, "param", 4))) as pool:
            yield pool
