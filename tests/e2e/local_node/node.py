"""The node: containerd, kubelet and kube-proxy in one machine. Its images lie in one sparse file, removed at once."""

import json
import subprocess
from pathlib import Path
from typing import Any

from local_node.control_plane import BRIDGE, host
from local_node.kubelet_settings import kubelet_settings
from local_node.machine import COMMAND_LIMIT_S, Machine, wait_for
from local_node.pause_image import PAUSE_IMAGE, write_pause_image
from local_node.places import NODE, Places, cni_folder

PROGRAMS = ("containerd", "kube-proxy", "kubelet")
DISK_SIZE = "20G"
SERVES_WITHIN_S = 60.0
IMPORT_LIMIT_S = 900.0  # of the largest image, a gigabyte and a half, on a busy disk
CONTAINERD = """version = 2
root = "{folder}/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.internal.v1.opt",
  "io.containerd.tracing.processor.v1.otlp"]
[grpc]
  address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  disable_tcp_service = true
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{cni}"
    conf_dir = "{folder}/net.d"
"""


def boot_node(node: Machine) -> None:
    """Its folders, its disk, its mounts; nothing runs in it yet."""
    folder = node.places.folder
    binds = {"kubelet-host": "/var/lib/kubelet", "cni": "/var/lib/cni", "node-log": "/var/log"}
    for name in (*binds, "containerd", "net.d", "plugins"):
        (folder / name).mkdir(exist_ok=True)
    made = [Path(place) for place in binds.values() if not Path(place).exists()]
    for place in made:  # mount points that programs insist on; `forget_mount_points` removes them
        place.mkdir()
    with (folder / "made-folders").open("a") as file:
        file.writelines(f"{place}\n" for place in made)
    node.boot({folder / name: place for name, place in binds.items()})
    disk = folder / "disk.img"
    if not disk.exists():
        subprocess.run(["truncate", "-s", DISK_SIZE, str(disk)], check=True, timeout=30)
        options = ["-q", "-F", "-O", "^has_journal", "-E", "lazy_itable_init=1,nodiscard"]
        subprocess.run(["mkfs.ext4", *options, str(disk)], check=True, timeout=60)
    node.run("mount", "-o", "loop,noatime", str(disk), str(folder / "containerd"))


def forget_mount_points(places: Places) -> None:
    """Folders on the host that were made only as mount points."""
    made = places.folder / "made-folders"
    for place in made.read_text().split() if made.exists() else ():
        Path(place).rmdir()
    made.unlink(missing_ok=True)


def connect_node(control: Machine, node: Machine) -> None:
    """A cable to the control plane's bridge; pod addresses are routed, without translation."""
    places = node.places
    pods = f"{places.pod_network}.0/24"
    ends = ("eth0", "netns", str(node.pid), "type", "veth", "peer", "name", NODE, "netns", str(control.pid))
    host("link", "add", *ends)  # only the host knows both machines' pids
    control.run("ip", "link", "set", NODE, "master", BRIDGE, "up")
    node.run("ip", "addr", "add", f"{places.node_address}/24", "dev", "eth0")
    node.run("ip", "link", "set", "eth0", "up")
    node.run("ip", "route", "add", "default", "via", places.control_address)
    services = f"{places.service_network.rpartition('.')[0]}.0.0/16"
    for network in (pods, services):
        control.run("ip", "route", "replace", network, "via", places.node_address)


def start_containerd(node: Machine) -> None:
    """containerd and kube-proxy; the pause image is loaded once containerd serves."""
    places = node.places
    folder, cni = places.folder, cni_folder()
    network: dict[str, Any] = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": f"{places.pod_network}.0/24"}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    pods = {
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [network, {"type": "portmap", "capabilities": {"portMappings": True}}],
    }
    (folder / "net.d" / "10-pods.conflist").write_text(json.dumps(pods))
    config = folder / "containerd.toml"
    config.write_text(CONTAINERD.format(folder=folder, socket=places.containerd_socket, pause=PAUSE_IMAGE, cni=cni))
    node.start("containerd", ["containerd", "-c", str(config), "-l", "warn"])
    node.start("kube-proxy", [str(places.programs["kube-proxy"]), *_proxy_flags(places)])


def _proxy_flags(places: Places) -> list[str]:
    flags = {
        "kubeconfig": str(places.folder / "proxy.kubeconfig"),
        "hostname-override": NODE,
        "cluster-cidr": f"{places.pod_network.rpartition('.')[0]}.0.0/16",
        "proxy-mode": "iptables",
        "iptables-min-sync-period": "100ms",  # endpoints follow 1 s late without
        "oom-score-adj": "0",
        "metrics-bind-address": "127.0.0.1:10249",
        # It may not write the host's connection tracking settings.
        "conntrack-max-per-core": "0",
        "conntrack-min": "0",
        "conntrack-tcp-timeout-established": "0",
        "conntrack-tcp-timeout-close-wait": "0",
    }
    return [f"--{key}={value}" for key, value in flags.items()]


def start_kubelet(node: Machine) -> None:
    """Only once containerd serves: a kubelet that finds none ends at once."""
    places = node.places
    wait_for(lambda: _containerd_serves(node), SERVES_WITHIN_S, "containerd serves")
    archive = places.folder / "pause.tar"
    write_pause_image(archive, places.programs["pause"])
    with archive.open("rb") as file:
        ctr(node, "images", "import", "-", stdin=file.fileno(), limit_s=IMPORT_LIMIT_S)
    (places.folder / "resolv.conf").touch()
    config = places.folder / "kubelet.json"
    config.write_text(json.dumps(kubelet_settings(places), indent=1))
    flags = {
        "config": config,
        "kubeconfig": places.folder / "kubelet.kubeconfig",
        "hostname-override": NODE,
        "node-ip": places.node_address,
        "root-dir": places.folder / "kubelet",
        "cert-dir": places.folder / "kubelet-pki",
    }
    node.start("kubelet", [str(places.programs["kubelet"]), *(f"--{key}={value}" for key, value in flags.items())])


def _containerd_serves(node: Machine) -> bool:
    if not node.alive("containerd") or not node.places.containerd_socket.exists():
        return False
    return "io.containerd" in ctr(node, "plugins", "ls")


def ctr(node: Machine, *arguments: str, stdin: int | None = None, limit_s: float = COMMAND_LIMIT_S) -> str:
    """containerd's own client, among what the kubelet sees."""
    client = ("ctr", "-a", str(node.places.containerd_socket), "-n", "k8s.io")
    return node.run(*client, *arguments, stdin=stdin, limit_s=limit_s)
