"""What goes wrong: processes that die or stand still, and packets that do not arrive. Needs the local node, mostly."""

from collections.abc import Iterator
from contextlib import contextmanager

from e2e_cluster import Cluster, Document
from local_node.cluster import LocalCluster
from local_node.node import ctr


def node_of(cluster: Cluster) -> LocalCluster:
    """The local node.

    Raises:
        AssertionError: it is a cluster of yours, whose nodes we cannot enter.
    """
    assert cluster.local is not None, "this fault needs a node that tests may enter: unset E2E_KUBECONFIG"
    return cluster.local


def container_of(pod: Document) -> str:
    """The id of a pod's container."""
    (status,) = pod["status"]["containerStatuses"]
    return str(status["containerID"]).removeprefix("containerd://")


def kill(cluster: Cluster, pod: Document) -> None:
    """SIGKILL to the pod's process, without a word to anybody."""
    ctr(node_of(cluster).node, "task", "kill", "--signal=SIGKILL", container_of(pod))


def _host_pid(cluster: Cluster, pod: Document) -> str:
    container = container_of(pod)
    for line in ctr(node_of(cluster).node, "task", "ls").splitlines():
        fields = line.split()
        if fields[0] == container:
            return fields[1]
    raise AssertionError(f"{pod['metadata']['name']} does not run")


@contextmanager
def frozen(cluster: Cluster, pod: Document) -> Iterator[None]:
    """The pod's process stands still (SIGSTOP): its connections stay open, nothing answers."""
    node, pid = node_of(cluster).node, _host_pid(cluster, pod)
    node.run("kill", "-STOP", pid)
    try:
        yield
    finally:
        node.run("kill", "-CONT", pid)


@contextmanager
def cut(cluster: Cluster, *pairs: tuple[str, str]) -> Iterator[None]:
    """Packets from the first address to the second are dropped, for each pair."""
    node = node_of(cluster).node
    rules = [("FORWARD", "-s", source, "-d", target, "-j", "DROP") for source, target in pairs]
    # Between pods of one bridge iptables is only asked if the bridge hands packets over.
    node.run("sh", "-c", "sysctl -qw net.bridge.bridge-nf-call-iptables=1 2>/dev/null || true")
    for rule in rules:
        node.run("iptables", "-I", *rule)
    try:
        yield
    finally:
        for rule in rules:
            node.run("iptables", "-D", *rule)


def address_of(pod: Document) -> str:
    """The pod's address."""
    return str(pod["status"]["podIP"])
