"""Profiles of pools in a cluster: measured on the pool's own workers, written into its ConfigMap.

Workers are reached by `kubectl port-forward`, so nothing is installed and nothing is opened. They go on serving: what
is measured gives way to requests.
"""

import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from t2i_api.names import gateway_name, workers_name
from t2i_api.parse import PoolError, read_pool
from t2i_api.pool import PoolSpec
from t2i_policy.judge_record import other_judge
from t2i_policy.profile import LevelProfile, ProfileError
from t2i_policy.profile_document import parse_profile, render_profile
from t2i_profiler.worker_client import IN_CLEAR, OpenChannel
from t2i_runtime.errors import CertificatesUnusable
from t2i_runtime.tls.certificates import AUTHORITIES, CHAIN, KEY, Certificates, read_certificates
from t2i_runtime.tls.transport import channel_opener
from t2ictl.cluster import PoolName
from t2ictl.errors import InputInvalid
from t2ictl.forwarding import forwarded
from t2ictl.profiling import ProfileTarget

if TYPE_CHECKING:
    from t2ictl.kube import Cluster

FIELD = "security.gatewayClientTlsSecretName"


@asynccontextmanager
async def target_in_cluster(name: PoolName, tls_dir: Path | None = None) -> AsyncIterator[ProfileTarget]:
    """The pool's spec, and a way to each ready worker, for the time of the block.

    Workers that take calls of their gateways only are called with the gateways' certificate: that of the pool's Secret,
    or the one in `tls_dir`, a folder as a Secret is mounted.

    Raises:
        ClusterFailed: no such pool, no worker, no way to one, or no right to read the Secret.
        InputInvalid: there is no certificate that the workers let in.
    """
    from t2ictl.kube import open_cluster

    spec = await spec_in_cluster(name)
    async with open_cluster() as cluster:
        open_channel = await _opener(cluster, name, spec, tls_dir)
        workers = await cluster.ready_workers(name)
    async with AsyncExitStack() as stack:
        ways = [await stack.enter_async_context(forwarded(name.namespace, f"pod/{pod}")) for pod in workers]
        yield ProfileTarget(spec, None, ways, open_channel)


async def _opener(cluster: "Cluster", name: PoolName, spec: PoolSpec, tls_dir: Path | None) -> OpenChannel:
    if not spec.security.workers_secured:
        if tls_dir is not None:
            raise InputInvalid(f"--tls-dir: workers of pool {name} ask for no certificate; leave it out")
        return IN_CLEAR
    where = "--tls-dir"
    if tls_dir is not None:
        certificates = _read(where, tls_dir)
    else:
        secret = spec.security.gateway_client_tls_secret_name
        where = f"{FIELD}: Secret {secret}"
        certificates = _unpacked(where, await cluster.secret(name.namespace, secret))
    caller = f"{gateway_name(name.name)}.{name.namespace}.svc"
    if caller not in certificates.names:
        raise InputInvalid(f"{where}: the certificate must be for {caller}, the only caller that workers let in")
    if certificates.expired:
        raise InputInvalid(f"{where}: the certificate has expired: renew it")
    return channel_opener(certificates, f"{workers_name(name.name)}.{name.namespace}.svc", ())


def _unpacked(where: str, files: dict[str, bytes]) -> Certificates:
    """They lie in a folder of ours alone while they are read."""
    missing = [file for file in (CHAIN, KEY, AUTHORITIES) if file not in files]
    if missing:
        raise InputInvalid(f"{where} has no {' and no '.join(missing)}: let cert-manager make it, or create it anew")
    with tempfile.TemporaryDirectory() as folder:
        for file in (CHAIN, KEY, AUTHORITIES):
            (Path(folder) / file).touch(0o600)
            (Path(folder) / file).write_bytes(files[file])
        return _read(where, Path(folder))


def _read(where: str, folder: Path) -> Certificates:
    try:
        return read_certificates(folder)
    except CertificatesUnusable as error:
        raise InputInvalid(f"{where}: {error}") from error


async def spec_in_cluster(name: PoolName) -> PoolSpec:
    """Raises:
    ClusterFailed: no such pool, or no way to the API server.
    InputInvalid: it is not valid.
    """
    from t2ictl.kube import open_cluster

    async with open_cluster() as cluster:
        document = await cluster.document(name)
    try:
        return read_pool(document).spec
    except PoolError as error:
        raise InputInvalid(f"pool {name} is not valid: {error}") from error


async def publish_profile(name: PoolName, spec: PoolSpec, profile: LevelProfile, replace_judge: bool) -> str:
    """Write the ConfigMap that the pool's profileRef names, else NAME-profile; what was done, in words.

    Raises:
        ClusterFailed: it cannot be written.
        InputInvalid: it holds a profile by another judge.
    """
    from t2ictl.kube import open_cluster

    config_map = spec.profile_ref.name if spec.profile_ref is not None else f"{name.name}-profile"
    async with open_cluster() as cluster:
        there = await cluster.profile(name, config_map)
        if there is not None and not replace_judge:
            _check_judge(there, profile, config_map)
        await cluster.write_profile(name, config_map, render_profile(profile))
    if spec.profile_ref is not None:
        return f"written: ConfigMap {name.namespace}/{config_map}; the pool's gateways roll to serve by it"
    patch = f"""'{{"spec":{{"profileRef":{{"name":"{config_map}"}}}}}}'"""
    return (
        f"written: ConfigMap {name.namespace}/{config_map}; to serve by it: kubectl patch t2ip {name.name} "
        f"--namespace {name.namespace} --type merge --patch {patch}"
    )


def _check_judge(there: str, profile: LevelProfile, config_map: str) -> None:
    try:
        before = parse_profile(there)
    except ProfileError:
        return  # nobody serves by it
    differ = other_judge((before.judge, profile.judge))
    if differ:
        raise InputInvalid(
            f"ConfigMap {config_map} holds a profile by another judge ({differ}): floors of the pool and of requests "
            "would mean something else. The new profile lies in --out; to put it there all the same: --replace-judge, "
            "with --from-samples OUT.samples.jsonl it draws nothing again"
        )
