"""A real Kubernetes API server for tests: etcd and kube-apiserver on loopback, RBAC on, nothing faked.

`with kube_server(folder) as server:` yields it ready, with our CRD installed. Without controllers nothing collects
garbage, fills StatefulSets or finishes deleting a namespace; `controllers=True` adds kube-controller-manager: it does.
There is no kubelet: pods stay Pending until a test writes their status.
"""

import functools
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3
import yaml

from t2i_testing_kit.kube.assets import ensure_assets
from t2i_testing_kit.kube.certificates import Authority
from t2i_testing_kit.kube.flags import Ports, apiserver_flags, controllers_flags, etcd_flags
from t2i_testing_kit.programs import ProgramError, StartedProgram, free_ports

CRD_FOLDER = Path(__file__).parents[3] / "crds"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
KUBECTL_LIMIT_S = 60.0
CALL_LIMIT_S = 60.0
START_TRIES = 3  # somebody may take a port between our look and the program's
ADMINISTRATORS = ("system:masters",)


class KubectlError(RuntimeError):
    """kubectl failed; the message is what it wrote."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the API server said."""

    status: int
    body: dict[str, Any]

    @property
    def ok(self) -> bool:
        """True for 2xx."""
        return 200 <= self.status < 300

    @property
    def message(self) -> str:
        """Why it refused."""
        return str(self.body.get("message", ""))


class KubeServer:
    """A running API server. `kubeconfig` is an administrator's, who may do everything."""

    def __init__(self, folder: Path, url: str, assets: dict[str, Path]) -> None:
        self.folder = folder
        self.url = url
        self.assets = assets
        self.authority = Authority(folder / "pki")
        self.ca_file = self.authority.folder / "ca.crt"
        self.kubeconfig = self.user("admin", ADMINISTRATORS)
        self.programs: dict[str, StartedProgram] = {}
        self._connections = urllib3.PoolManager(
            ca_certs=str(self.ca_file),
            cert_file=str(self.authority.folder / "admin.crt"),
            key_file=str(self.authority.folder / "admin.key"),
            timeout=CALL_LIMIT_S,
            retries=False,
        )

    def user(self, name: str, groups: tuple[str, ...] = (), url: str = "") -> Path:
        """A kubeconfig for any user, e.g. `system:serviceaccount:NAMESPACE:NAME`; `url` = a proxy's address."""
        file = name.replace(":", "-") + ("" if not url else f"-{url.rpartition(':')[2]}")
        certificate, key = self.authority.issue(file, name, groups)
        user = {"client-certificate": str(certificate), "client-key": str(key)}
        cluster = {"server": url or self.url, "certificate-authority": str(self.ca_file)}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": user}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        }
        path = self.folder / f"{file}.kubeconfig"
        path.touch(mode=0o600)
        path.write_text(json.dumps(document, indent=1))
        return path

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl as the administrator; its standard output.

        Raises:
            KubectlError: it failed.
        """
        command = [str(self.assets["kubectl"]), "--kubeconfig", str(self.kubeconfig), *arguments]
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, timeout=KUBECTL_LIMIT_S, check=False
        )
        if done.returncode != 0:
            raise KubectlError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def call(self, method: str, path: str, body: object = None, kind: str = "application/json") -> Answer:
        """One request as the administrator, e.g. `call("PATCH", ..., {...}, "application/merge-patch+json")`."""
        data = None if body is None else json.dumps(body)
        answer = self._connections.request(method, self.url + path, body=data, headers={"Content-Type": kind})
        parsed = json.loads(answer.data) if answer.data.startswith(b"{") else {"message": answer.data.decode()}
        return Answer(answer.status, parsed)

    def answers(self, path: str) -> bool:
        """True if a GET of the path succeeds."""
        try:
            return self.call("GET", path).ok
        except urllib3.exceptions.HTTPError:
            return False

    def install_crds(self) -> None:
        """Apply what `crds/` holds and wait until it is served."""
        for file in sorted(CRD_FOLDER.glob("*.yaml")):
            crd = yaml.safe_load(file.read_text())
            name, spec = crd["metadata"]["name"], crd["spec"]
            applied = self.call("PATCH", f"{CRDS}/{name}?fieldManager=tests", crd, "application/apply-patch+yaml")
            if not applied.ok:
                raise ProgramError(f"{file.name}: {applied.message}")
            served = f"/apis/{spec['group']}/{spec['versions'][0]['name']}/{spec['names']['plural']}"
            self.programs["kube-apiserver"].wait_until(functools.partial(self.answers, served))

    def run(self, name: str, flags: list[str]) -> None:
        """Start one of the programs; `stop` ends it."""
        self.programs[name] = StartedProgram(name, [str(self.assets[name]), *flags], self.folder / f"{name}.log")
        self.programs[name].start()

    def stop(self) -> None:
        """End every program; the data is gone with the folder."""
        self._connections.clear()
        for program in reversed(list(self.programs.values())):
            program.stop()

    def restart_apiserver(self) -> None:
        """Kill kube-apiserver and start it again on the same port and data."""
        program = self.programs["kube-apiserver"]
        program.stop()
        program.start()
        program.wait_until(lambda: self.answers("/readyz"))


@contextmanager
def kube_server(folder: Path, controllers: bool = False, crds: bool = True) -> Iterator[KubeServer]:
    """Start a server whose files lie in `folder`; no process of it outlives the block.

    Raises:
        AssetsError: the programs cannot be had.
        ProgramError: one of them does not start.
    """
    assets = ensure_assets(lambda _: None)
    folder.mkdir(parents=True, exist_ok=True)
    server = _start(folder, assets, controllers)
    try:
        if crds:
            server.install_crds()
        yield server
    finally:
        server.stop()


def _start(folder: Path, assets: dict[str, Path], controllers: bool) -> KubeServer:
    for left in reversed(range(START_TRIES)):
        ports = Ports(*free_ports(4))
        server = KubeServer(folder, f"https://127.0.0.1:{ports.api}", assets)
        try:
            _start_programs(server, ports, controllers)
        except ProgramError:
            server.stop()
            if left == 0:
                raise
        except BaseException:
            server.stop()
            raise
        else:
            return server
    raise AssertionError("not reached")


def _start_programs(server: KubeServer, ports: Ports, controllers: bool) -> None:
    data = server.folder / f"etcd-{ports.etcd}"
    server.run("etcd", etcd_flags(data, ports))
    server.run("kube-apiserver", apiserver_flags(server.authority, ports, controllers))
    server.programs["kube-apiserver"].wait_until(lambda: server.answers("/readyz"))
    if controllers:
        server.run("kube-controller-manager", controllers_flags(server.authority, server.kubeconfig, ports))
        # made by a controller: shows that they work
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        server.programs["kube-controller-manager"].wait_until(lambda: server.answers(account))
