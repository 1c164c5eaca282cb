"""What goes wrong: processes that die or stand still, and packets that do not arrive. Needs the local node, mostly."""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from e2e_cluster import Cluster, Document
from local_node.cluster import LocalCluster
from local_node.node import ctr

END_LIMIT_S = 10.0


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
def slowed(cluster: Cluster, pod: Document, factor: float, piece_s: float) -> Iterator[None]:
    """The pod's process runs in short turns only (SIGSTOP, SIGCONT), so that it gets on `factor` times slower.

    One that sleeps, as simulated workers do, `piece_s` at a time, ends one sleep in a turn. One that computes gets 0.8
    of that.
    """
    node, pid = node_of(cluster).node, _host_pid(cluster, pod)
    with turns(node.command("sh", "-c", TURNS, "turns", pid, *turn_lengths(factor, piece_s))):
        yield


#: Arguments: a pid, how long it runs and how long it stands still in a turn. Ends when its input ends, whoever held it.
TURNS = """
(while kill -STOP "$1" && sleep "$3" && kill -CONT "$1" && sleep "$2"; do :; done) &
turning=$!
read -r _
kill "$turning"
wait "$turning" 2>/dev/null
kill -CONT "$1"
"""


def turn_lengths(factor: float, piece_s: float) -> tuple[str, str]:
    """Seconds of running, shorter than one piece so that no turn ends two, and of standing still."""
    run_s = 0.8 * piece_s
    return f"{run_s:.3f}", f"{factor * piece_s - run_s:.3f}"


@contextmanager
def turns(command: Sequence[str]) -> Iterator[None]:
    """`TURNS` goes on meanwhile; at the end of the block, or of us, the process runs again.

    Raises:
        AssertionError: it did not end well, so the process may stand still.
    """
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as running:
        try:
            yield
        finally:
            running.communicate(timeout=END_LIMIT_S)
    assert running.returncode == 0, "the process may stand still"


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
