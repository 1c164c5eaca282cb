"""The cluster under test: kubectl and helm with its kubeconfig, our images in it, and ways to wait on conditions.

`E2E_KUBECONFIG` names a cluster of yours; it must be able to pull `E2E_REGISTRY/{operator,gateway,worker}:E2E_TAG`.
Without it a local node is brought up, the images are built and loaded, and all of it goes away at the end. The local
node's own kubeconfig as `E2E_KUBECONFIG` keeps the node between runs.
"""

import json
import os
import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from e2e_images import NAMES, build_images, push_command, storage
from local_node.cluster import LocalCluster
from local_node.places import NodeError, Places, default_folder

Document = dict[str, Any]
Say = Callable[[str], None]
METRICS_PORT = 9090
LIMIT_S = 60.0
POLL_S = 0.1
_SAMPLE = re.compile(r"^(\w+)(?:\{([^}]*)\})? (\S+)$", re.MULTILINE)


class ClusterError(RuntimeError):
    """kubectl or helm failed, or something did not come about in time; the message is what is known."""


@dataclass(frozen=True, slots=True)
class ImageName:
    """As the chart takes it."""

    repository: str
    tag: str


@dataclass(slots=True)
class Cluster:
    """`local` is None on a cluster of yours: faults that need its node are not possible there."""

    kubeconfig: Path
    programs: dict[str, Path]
    images: dict[str, ImageName]
    local: LocalCluster | None = None
    environment: dict[str, str] = field(default_factory=dict)

    def _run(self, program: str, arguments: tuple[str, ...], stdin: str | None, limit_s: float) -> str:
        environment = {**os.environ, **self.environment, "KUBECONFIG": str(self.kubeconfig)}
        done = subprocess.run(
            [str(self.programs[program]), *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=False,
            env=environment,
        )
        if done.returncode != 0:
            raise ClusterError(f"{program} {' '.join(arguments[:6])}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def kubectl(self, *arguments: str, stdin: str | None = None, limit_s: float = LIMIT_S) -> str:
        """Its standard output.

        Raises:
            ClusterError: it failed.
        """
        return self._run("kubectl", arguments, stdin, limit_s)

    def helm(self, *arguments: str, limit_s: float = 240.0) -> str:
        """Its standard output.

        Raises:
            ClusterError: it failed.
        """
        return self._run("helm", arguments, None, limit_s)

    def get(self, *arguments: str) -> Document:
        """`kubectl get ... --output=json`, parsed."""
        document: Document = json.loads(self.kubectl("get", *arguments, "--output=json"))
        return document

    def raw(self, path: str) -> str:
        """A GET of the API server."""
        return self.kubectl("get", f"--raw={path}")

    def metrics(self, namespace: str, pod: str) -> dict[tuple[str, str], float]:
        """`(name, labels)` -> value, of one pod."""
        text = self.raw(f"/api/v1/namespaces/{namespace}/pods/{pod}:{METRICS_PORT}/proxy/metrics")
        return {(name, labels): float(value) for name, labels, value in _SAMPLE.findall(text)}

    def apply(self, document: Document | str, namespace: str) -> None:
        """Apply a manifest."""
        text = document if isinstance(document, str) else json.dumps(document)
        self.kubectl("apply", f"--namespace={namespace}", "--filename=-", stdin=text)

    def patch(self, what: str, namespace: str, change: Document) -> None:
        """A merge patch, e.g. of `t2ip/scenes`."""
        self.kubectl("patch", what, f"--namespace={namespace}", "--type=merge", f"--patch={json.dumps(change)}")

    def pods(self, namespace: str, component: str = "") -> list[Document]:
        """Pods of a namespace, oldest name first; `component`: worker, gateway, operator."""
        selector = [f"--selector=app.kubernetes.io/component={component}"] if component else []
        items: list[Document] = self.get("pods", f"--namespace={namespace}", *selector)["items"]
        return sorted(items, key=lambda pod: str(pod["metadata"]["name"]))

    def condition(self, pool: str, namespace: str, kind: str) -> Document:
        """One of a pool's conditions, empty if it is not there yet."""
        status = self.get(f"t2ip/{pool}", f"--namespace={namespace}").get("status", {})
        found: Document = next((one for one in status.get("conditions", ()) if one["type"] == kind), {})
        return found


def is_ready(pod: Document) -> bool:
    """True for a pod that is Ready and stays."""
    if pod["metadata"].get("deletionTimestamp"):
        return False
    conditions = pod.get("status", {}).get("conditions", ())
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def restarts(pods: list[Document]) -> int:
    """Container restarts of some pods, added up."""
    return sum(one["restartCount"] for pod in pods for one in pod.get("status", {}).get("containerStatuses", ()))


def until(what: str, holds: Callable[[], bool], within_s: float = 120.0) -> float:
    """Look again and again; the seconds it took.

    Raises:
        ClusterError: not in time.
    """
    begin = time.monotonic()
    while not holds():
        if time.monotonic() - begin > within_s:
            raise ClusterError(f"not within {within_s:.0f} s: {what}")
        time.sleep(POLL_S)
    return time.monotonic() - begin


def local_cluster(programs: dict[str, Path], say: Say) -> Cluster:
    """A node of our own, with our images in it: brought up, or found up.

    Raises:
        NodeError: this machine cannot.
    """
    node = LocalCluster(Places(default_folder(), programs), say)
    images = build_images(say)
    if not node.is_up:
        node.down()  # what a killed run may have left
        node.up()
    os.environ.update(storage())
    there = node.images()
    for image in images.values():
        if image.reference not in there:
            begin = time.monotonic()
            node.load(push_command(image))
            say(f"images: {image.reference} is in the node after {time.monotonic() - begin:.0f} s")
    names = {name: ImageName(image.repository, image.digest) for name, image in images.items()}
    return Cluster(node.places.kubeconfig, programs, names, node)


def foreign_cluster(kubeconfig: Path, programs: dict[str, Path]) -> Cluster:
    """A cluster of yours.

    Raises:
        NodeError: not told where its images are.
    """
    registry, tag = os.environ.get("E2E_REGISTRY"), os.environ.get("E2E_TAG")
    if not registry or not tag:
        raise NodeError(
            "E2E_KUBECONFIG is set: build containers/ and push them where that cluster pulls from, then set "
            "E2E_REGISTRY and E2E_TAG, e.g. E2E_REGISTRY=localhost:5001/t2i-serving E2E_TAG=dev"
        )
    return Cluster(kubeconfig, programs, {name: ImageName(f"{registry}/{name}", tag) for name in NAMES})
