"""The control plane: etcd, API server, controllers, scheduler and DNS, in one machine.

It is the switch, too: host and node hang on its bridge. Flags that differ from the usual ones say why.
"""

import subprocess
from pathlib import Path

from local_node.machine import COMMAND_LIMIT_S, Machine

BRIDGE = "fabric"
PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "coredns")
COREFILE = """.:53 {{
    bind {address}
    errors
    ready {address}:8181
    kubernetes {domain} in-addr.arpa {{
        kubeconfig {kubeconfig}
        pods insecure
        ttl 5
    }}
    cache 5
    loadbalance
}}
"""


def host(*arguments: str) -> None:
    """A command on the host."""
    subprocess.run(["ip", *arguments], check=True, timeout=COMMAND_LIMIT_S, capture_output=True)


def connect_host(machine: Machine) -> None:
    """The bridge, and the host's veth with its routes to pods and services."""
    places = machine.places
    # A fixed address: else the bridge takes its ports' lowest, and changes it when a port comes: 10 s of silence.
    machine.run("ip", "link", "add", BRIDGE, "address", "02:00:00:00:00:01", "type", "bridge")
    machine.run("ip", "addr", "add", f"{places.control_address}/24", "dev", BRIDGE)
    machine.run("ip", "link", "set", BRIDGE, "up")
    host("link", "add", places.interface, "type", "veth", "peer", "name", "host", "netns", str(machine.pid))
    machine.run("ip", "link", "set", "host", "master", BRIDGE, "up")
    host("addr", "add", f"{places.host_address}/24", "dev", places.interface)
    host("link", "set", places.interface, "up")
    for network in (places.pod_network, places.service_network):
        host("route", "add", f"{network.rpartition('.')[0]}.0.0/16", "via", places.control_address)


def start_api(machine: Machine) -> None:
    """etcd and the API server."""
    places = machine.places
    folder, pki = places.folder, places.folder / "pki"
    etcd = {
        "data-dir": folder / "etcd",
        "listen-client-urls": "http://127.0.0.1:2379",
        "advertise-client-urls": "http://127.0.0.1:2379",
        "listen-peer-urls": "http://127.0.0.1:2380",
        "unsafe-no-fsync": "true",  # the data does not outlive the cluster
        "log-level": "warn",
    }
    _start(machine, "etcd", etcd)
    flags = {
        "etcd-servers": "http://127.0.0.1:2379",
        "bind-address": "0.0.0.0",
        "advertise-address": places.control_address,  # else pods cannot reach kubernetes.default
        "kubelet-preferred-address-types": "InternalIP",  # else exec, logs and port-forward fail
        "kubelet-client-certificate": pki / "admin.crt",
        "kubelet-client-key": pki / "admin.key",
        "tls-cert-file": pki / "apiserver.crt",
        "tls-private-key-file": pki / "apiserver.key",
        "client-ca-file": pki / "ca.crt",
        "service-account-key-file": pki / "service-accounts.key",
        "service-account-signing-key-file": pki / "service-accounts.key",
        "service-account-issuer": f"https://kubernetes.default.svc.{places.domain}",
        "service-cluster-ip-range": f"{places.service_network.rpartition('.')[0]}.0.0/16",
        "authorization-mode": "Node,RBAC",
        "enable-admission-plugins": "NodeRestriction",
        "allow-privileged": "true",
        "profiling": "false",
        "shutdown-delay-duration": "0s",
    }
    _start(machine, "kube-apiserver", flags)


def start_controllers(machine: Machine) -> None:
    """Everything that needs a ready API server."""
    places = machine.places
    folder, pki = places.folder, places.folder / "pki"
    controllers = {
        "kubeconfig": folder / "controllers.kubeconfig",
        "service-account-private-key-file": pki / "service-accounts.key",
        "root-ca-file": pki / "ca.crt",
        "use-service-account-credentials": "true",
        "leader-elect": "false",
        "allocate-node-cidrs": "false",
        "bind-address": "127.0.0.1",
        "kube-api-qps": "300",  # the default of 20 makes every start 5 s longer
        "kube-api-burst": "600",
        "flex-volume-plugin-dir": folder / "plugins",  # the default leaves a folder on the host
        "node-monitor-period": "2s",
        "node-monitor-grace-period": "12s",
    }
    _start(machine, "kube-controller-manager", controllers)
    scheduler = {"kubeconfig": folder / "scheduler.kubeconfig", "leader-elect": "false", "bind-address": "127.0.0.1"}
    _start(machine, "kube-scheduler", scheduler)
    corefile = folder / "Corefile"
    kubeconfig = folder / "coredns.kubeconfig"
    corefile.write_text(COREFILE.format(address=places.control_address, domain=places.domain, kubeconfig=kubeconfig))
    machine.start("coredns", [str(places.programs["coredns"]), "-conf", str(corefile)])


def _start(machine: Machine, name: str, flags: dict[str, str | Path]) -> None:
    command = [str(machine.places.programs[name]), *(f"--{flag}={value}" for flag, value in flags.items())]
    machine.start(name, command)
