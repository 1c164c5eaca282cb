"""Profiles of pools in a cluster: measured on the pool's own workers, written into its ConfigMap.

Workers are reached by `kubectl port-forward`, so nothing is installed and nothing is opened. They go on serving: what
is measured gives way to requests.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from t2i_api.parse import PoolError, read_pool
from t2i_api.pool import PoolSpec
from t2i_policy.judge_record import other_judge
from t2i_policy.profile import LevelProfile, ProfileError, parse_profile, render_profile
from t2ictl.cluster import PoolName
from t2ictl.errors import InputInvalid
from t2ictl.forwarding import forwarded
from t2ictl.profiling import ProfileTarget


@asynccontextmanager
async def target_in_cluster(name: PoolName) -> AsyncIterator[ProfileTarget]:
    """The pool's spec, and a way to each ready worker, for the time of the block.

    Raises:
        ClusterFailed: no such pool, no worker, or no way to one.
        InputInvalid: the workers take calls of their gateways only.
    """
    from t2ictl.kube import open_cluster

    spec = await spec_in_cluster(name)
    async with open_cluster() as cluster:
        if spec.security.workers_secured:
            raise InputInvalid(
                f"workers of pool {name} take calls of its gateways only (security.workerTLSSecretName): measure a "
                "pool of the same model and device without, and name its ConfigMap in this one's profileRef"
            )
        workers = await cluster.ready_workers(name)
    async with AsyncExitStack() as stack:
        ways = [await stack.enter_async_context(forwarded(name.namespace, f"pod/{pod}")) for pod in workers]
        yield ProfileTarget(spec, None, ways)


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
