"""Where a local cluster lives: its folder, its networks, the names that the host sees."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

CNI_FOLDERS = ("/usr/lib/cni", "/opt/cni/bin")
TOOLS = ("containerd", "ctr", "runc", "ip", "iptables", "conntrack", "nsenter", "unshare", "mkfs.ext4")
PACKAGES = "containerd runc containernetworking-plugins conntrack iptables iproute2 util-linux e2fsprogs"
CONTROL_PLANE, NODE = "control-plane", "node0"


class NodeError(RuntimeError):
    """The local cluster cannot be had, or a part of it failed; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Places:
    """One local cluster. Two run side by side with other networks, interface and cgroup."""

    folder: Path
    programs: dict[str, Path]
    network: str = "10.87.0"  # of the machines
    pod_network: str = "10.88.0"
    service_network: str = "10.96.0"
    interface: str = "t2i0"
    cgroup: str = "t2i-e2e"
    domain: str = "cluster.local"

    @property
    def control_address(self) -> str:
        """Of the API server and of DNS."""
        return f"{self.network}.1"

    @property
    def node_address(self) -> str:
        """Of the node."""
        return f"{self.network}.10"

    @property
    def host_address(self) -> str:
        """Of the host, as pods see it."""
        return f"{self.network}.254"

    @property
    def kubeconfig(self) -> Path:
        """An administrator's."""
        return self.folder / "admin.kubeconfig"

    @property
    def logs(self) -> Path:
        """One file a program."""
        return self.folder / "log"

    @property
    def containerd_socket(self) -> Path:
        """Of the node's containerd; seen by the host too."""
        return self.folder / "containerd.sock"


def default_folder() -> Path:
    """In the user's cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "t2i-serving" / "e2e"


def cni_folder() -> str:
    """Where the distribution keeps CNI plugins.

    Raises:
        NodeError: nowhere.
    """
    for folder in CNI_FOLDERS:
        if Path(folder, "bridge").exists():
            return folder
    raise NodeError(f"no CNI plugins in {' or '.join(CNI_FOLDERS)}: {_advice()}")


def check_tools() -> None:
    """Everything that a local cluster needs to be installed.

    Raises:
        NodeError: what is missing, and how to get it.
    """
    if os.uname().sysname != "Linux" or os.geteuid() != 0:
        raise NodeError("a local node needs root on Linux: run as root, or set E2E_KUBECONFIG to a cluster of yours")
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        raise NodeError(f"not installed: {', '.join(missing)}: {_advice()}")
    cni_folder()


def check_host(places: Places) -> None:
    """The tools, and that no other local cluster is in the way.

    Raises:
        NodeError: see above.
    """
    check_tools()
    if Path("/sys/class/net", places.interface).exists():
        raise NodeError(
            f"network interface {places.interface} is there already: end the other local cluster "
            "(`make e2e-down`), or remove it"
        )


def _advice() -> str:
    return f"on Debian and Ubuntu: apt-get install {PACKAGES}; or set E2E_KUBECONFIG to a cluster of yours"
