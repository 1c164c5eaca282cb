"""A local node leaves nothing behind: a second one is started beside the first and ended, and the host is as before."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from local_node.cluster import LocalCluster
from local_node.places import Places
from t2i_testing_kit.kube.assets import ensure_assets
from t2i_testing_kit.kube.sources import NODE_PROGRAMS, PROGRAMS
from t2i_testing_kit.serving import WITHIN_S

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        "E2E_KUBECONFIG" in os.environ and os.geteuid() != 0, reason="about local nodes, which need root"
    ),
]


def traces(folder: Path) -> dict[str, object]:
    """What a node could leave: interfaces, routes, mounts, cgroups, loop devices, processes that name its folder."""

    def said(*command: str) -> list[str]:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
        return sorted(done.stdout.splitlines())

    return {
        "interfaces": sorted(path.name for path in Path("/sys/class/net").iterdir()),
        "routes": said("ip", "route"),
        "rules": [line for line in said("iptables-save") if line.startswith("-A")],
        "mounts": sorted(line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()),
        "cgroups": sorted(str(path) for path in Path("/sys/fs/cgroup").glob("*/t2i-*")),
        "loops": [path.read_text() for path in Path("/sys/block").glob("loop*/loop/backing_file")],
        "processes": sum(str(folder) in line for line in said("ps", "-ewwo", "args")),
        "host folders": [path for path in ("/var/lib/kubelet", "/var/lib/cni") if Path(path).exists()],
    }


def test_node_that_came_and_went_leaves_no_trace(tmp_path: Path) -> None:
    """Everything it made hangs on namespaces that end with it; only its folder stays, for the images."""
    places = Places(
        tmp_path / "node",
        ensure_assets(lambda _text: None, (*PROGRAMS, *NODE_PROGRAMS)),
        network="10.77.0",
        pod_network="10.78.0",
        service_network="10.79.0",
        interface="t2i1",
        cgroup="t2i-second",
    )
    before = traces(places.folder)
    cluster = LocalCluster(places)
    cluster.up()
    during = traces(places.folder)
    cluster.down()
    after = traces(places.folder)
    limit_s = time.monotonic() + WITHIN_S
    while after["processes"] and time.monotonic() < limit_s:  # those outside end a moment after what they watch
        after = traces(places.folder)
    changed = {key for key in before if before[key] != during[key]}
    assert {"interfaces", "routes", "cgroups", "loops", "processes"} <= changed
    assert after == before
    assert [path.name for path in places.folder.iterdir()] == ["disk.img"]
