"""Who is who in a local cluster: certificates and kubeconfigs of its programs, and the administrator's."""

import json
from pathlib import Path

from local_node.places import NODE, Places
from t2i_testing_kit.kube.certificates import Authority

SERVICE_ACCOUNTS = "service-accounts"
API_SERVER, KUBELET = "apiserver", "kubelet"
USERS = {
    "admin": ("admin", ("system:masters",)),
    "controllers": ("system:kube-controller-manager", ()),
    "scheduler": ("system:kube-scheduler", ()),
    "proxy": ("system:kube-proxy", ()),
    "coredns": ("system:coredns", ()),
    KUBELET: (f"system:node:{NODE}", ("system:nodes",)),
}


def issue_all(places: Places) -> Path:
    """Write `NAME.crt`, `NAME.key`, `NAME.kubeconfig`; the folder of the certificates."""
    authority = Authority(places.folder / "pki")
    authority.folder.chmod(0o700)
    first_service = places.service_network.rpartition(".")[0] + ".0.1"
    authority.issue(API_SERVER, "kube-apiserver", addresses=(places.control_address, first_service))
    authority.signing_key(SERVICE_ACCOUNTS)
    for name, (user, groups) in USERS.items():
        authority.issue(name, user, groups, (places.node_address,) if name == KUBELET else ())
        _write_kubeconfig(places, name)
    return authority.folder


def _write_kubeconfig(places: Places, name: str) -> None:
    pki = places.folder / "pki"
    cluster = {"server": f"https://{places.control_address}:6443", "certificate-authority": str(pki / "ca.crt")}
    user = {"client-certificate": str(pki / f"{name}.crt"), "client-key": str(pki / f"{name}.key")}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "e2e",
        "clusters": [{"name": "e2e", "cluster": cluster}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": "e2e", "context": {"cluster": "e2e", "user": name}}],
    }
    path = places.folder / f"{name}.kubeconfig"
    path.touch(mode=0o600)
    path.write_text(json.dumps(document, indent=1))
