"""A real Kubernetes on one Linux machine, for end-to-end tests: no registry, no systemd, no Docker; root only.

A *machine* (`control-plane`, `node0`) is one set of Linux namespaces (mount, PID, network, UTS, IPC) around one first
process. Ending that process ends every process, mount, network interface and iptables rule of the machine, so nothing
is left behind. The host sees one veth pair with routes to pods and services, one cgroup and one state folder; programs
on the host reach pods and cluster IPs directly.

Programs come from `t2i_testing_kit.kube.assets`; containerd, runc, CNI plugins and iptables from the distribution.
"""

import json
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from local_node import control_plane, node
from local_node.certificates import issue_all
from local_node.cgroups import make_cgroup, remove_cgroup
from local_node.machine import Machine, tail, wait_for
from local_node.places import CONTROL_PLANE, NODE, NodeError, Places, check_host

READY_WITHIN_S = 90.0
LOOPS_WITHIN_S = 10.0
KUBECTL_LIMIT_S = 20.0
#: Images are kept when a cluster goes, so that the next start is quick; `forget` removes them.
KEPT = ("disk.img",)
DNS_ROLE = """
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: "system:coredns"}
rules:
- {apiGroups: [""], resources: [endpoints, services, pods, namespaces], verbs: [list, watch]}
- {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: "system:coredns"}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:coredns"}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: "system:coredns"}]
"""


class LocalCluster:
    """Two machines on this host and what runs in them. `say` hears of progress."""

    def __init__(self, places: Places, say: Callable[[str], None] = lambda _text: None) -> None:
        self.places = places
        self.control = Machine(CONTROL_PLANE, places)
        self.node = Machine(NODE, places)
        self._say = say

    @property
    def is_up(self) -> bool:
        """True while its machines run."""
        return self.control.pid is not None and self.node.pid is not None

    def up(self) -> None:
        """Start it, within seconds; nothing of it is left if that fails.

        Raises:
            NodeError: this host cannot, or a program does not start.
        """
        check_host(self.places)
        begin = time.monotonic()
        for folder in (self.places.folder, self.places.logs):
            folder.mkdir(parents=True, exist_ok=True)
        try:
            self._start()
        except BaseException:
            self._say("failed: stopping what was started")
            self.down(keep_logs=True)
            raise
        self._say(f"local node is up after {time.monotonic() - begin:.1f} s; KUBECONFIG={self.places.kubeconfig}")

    def _start(self) -> None:
        issue_all(self.places)
        make_cgroup(self.places.cgroup)
        self.control.boot({})
        control_plane.connect_host(self.control)
        control_plane.start_api(self.control)
        node.boot_node(self.node)
        node.connect_node(self.control, self.node)
        node.start_containerd(self.node)
        node.start_kubelet(self.node)
        self._wait("the API server is ready", lambda: self.kubectl("get", "--raw=/readyz") == "ok")
        control_plane.start_controllers(self.control)
        self.kubectl("apply", "--filename=-", stdin=DNS_ROLE)
        self._wait("the node is Ready", self._node_ready)
        self._wait("the default service account is there", lambda: bool(self.kubectl("get", "serviceaccount/default")))

    def _node_ready(self) -> bool:
        conditions = json.loads(self.kubectl("get", f"node/{NODE}", "--output=json"))["status"]["conditions"]
        return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)

    def _wait(self, what: str, holds: Callable[[], bool]) -> None:
        def looked() -> bool:
            self._need_programs()
            try:
                return holds()
            except NodeError:
                return False

        wait_for(looked, READY_WITHIN_S, f"{what}; logs are in {self.places.logs}")

    def _need_programs(self) -> None:
        for machine, programs in ((self.control, control_plane.PROGRAMS), (self.node, node.PROGRAMS)):
            for program in programs:
                started = (self.places.folder / f"{machine.name}.{program}.pid").exists()
                if started and not machine.alive(program):
                    raise NodeError(f"{program} ended:\n{tail(self.places.logs / f'{program}.log')}")

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """kubectl as the administrator.

        Raises:
            NodeError: it failed.
        """
        command = [str(self.places.programs["kubectl"]), f"--kubeconfig={self.places.kubeconfig}", *arguments]
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, timeout=KUBECTL_LIMIT_S, check=False
        )
        if done.returncode != 0:
            raise NodeError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def images(self) -> frozenset[str]:
        """Names of the images that the node has."""
        return frozenset(node.ctr(self.node, "images", "ls", "-q").split())

    def load(self, push: list[str]) -> None:
        """An image into the node: `push` is a command that writes a docker-archive to its standard output.

        Raises:
            NodeError: one end of the pipe failed.
        """
        with subprocess.Popen(push, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as pushing:
            assert pushing.stdout is not None
            assert pushing.stderr is not None
            node.ctr(self.node, "images", "import", "-", stdin=pushing.stdout.fileno(), limit_s=node.IMPORT_LIMIT_S)
            pushing.stdout.close()
            if pushing.wait(KUBECTL_LIMIT_S) != 0:
                raise NodeError(f"{' '.join(push)}: {pushing.stderr.read().decode(errors='replace').strip()}")

    def down(self, keep_logs: bool = False, keep_images: bool = True) -> None:
        """End it; a second call does nothing. Only the state folder stays, with the images (and logs, if asked for)."""
        if Path("/sys/class/net", self.places.interface).exists() and self.control.pid is not None:
            control_plane.host("link", "del", self.places.interface)
        for machine in (self.node, self.control):
            machine.stop()
        wait_for(self._disk_is_free, LOOPS_WITHIN_S, "the kernel lets go of the node's disk")
        remove_cgroup(self.places.cgroup)
        node.forget_mount_points(self.places)
        kept = {*(KEPT if keep_images else ()), *(("log",) if keep_logs else ())}
        for path in self.places.folder.iterdir() if self.places.folder.exists() else ():
            if path.name not in kept:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        self._say("local node is down")

    def _disk_is_free(self) -> bool:
        loops = Path("/sys/block").glob("loop*/loop/backing_file")
        return not any(str(self.places.folder) in loop.read_text() for loop in loops)
