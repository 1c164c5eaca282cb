"""The command lines of the test API server's programs."""

from dataclasses import dataclass
from pathlib import Path

from t2i_testing_kit.kube.certificates import Authority

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Ports:
    """Loopback ports of one server."""

    etcd: int
    peer: int
    api: int
    controllers: int


def etcd_flags(data: Path, ports: Ports) -> list[str]:
    """One member, no fsync: the data does not outlive the test."""
    client, peer = f"http://{LOOPBACK}:{ports.etcd}", f"http://{LOOPBACK}:{ports.peer}"
    return [
        f"--data-dir={data}",
        "--unsafe-no-fsync",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--log-level=warn",
    ]


def apiserver_flags(authority: Authority, ports: Ports, controllers: bool) -> list[str]:
    """RBAC and the admission of a default cluster. The `ServiceAccount` admission asks service accounts and tokens of
    every pod. Without controllers nobody makes these, so it is off then."""
    certificate, key = authority.issue("apiserver", "kube-apiserver")
    signing = authority.signing_key("service-accounts")
    flags = [
        f"--etcd-servers=http://{LOOPBACK}:{ports.etcd}",
        f"--bind-address={LOOPBACK}",
        f"--advertise-address={LOOPBACK}",
        f"--secure-port={ports.api}",
        f"--tls-cert-file={certificate}",
        f"--tls-private-key-file={key}",
        f"--client-ca-file={authority.folder / 'ca.crt'}",
        f"--cert-dir={authority.folder}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={signing}",
        f"--service-account-signing-key-file={signing}",
        "--service-cluster-ip-range=10.96.0.0/16",
        "--authorization-mode=RBAC",
        "--endpoint-reconciler-type=none",  # loopback is no valid endpoint
        "--allow-privileged=true",
    ]
    return flags if controllers else [*flags, "--disable-admission-plugins=ServiceAccount"]


def controllers_flags(authority: Authority, kubeconfig: Path, ports: Ports) -> list[str]:
    """The default controllers, without an election and without the slow default rate of requests."""
    return [
        f"--kubeconfig={kubeconfig}",
        f"--bind-address={LOOPBACK}",
        f"--secure-port={ports.controllers}",
        f"--cert-dir={authority.folder}",
        f"--root-ca-file={authority.folder / 'ca.crt'}",
        f"--service-account-private-key-file={authority.folder / 'service-accounts.key'}",
        "--leader-elect=false",
        "--kube-api-qps=300",
        "--kube-api-burst=600",
        "--flex-volume-plugin-dir=" + str(authority.folder / "no-plugins"),
    ]
