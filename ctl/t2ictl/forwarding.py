"""A way to a pool's gateway from outside the cluster: `kubectl port-forward`, for as long as it is needed."""

import asyncio
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from t2i_api.names import GRPC_PORT
from t2ictl.cluster import PoolName
from t2ictl.errors import ClusterFailed

START_S = 20.0
STOP_S = 5.0
_FORWARDING = re.compile(r"Forwarding from (127\.0\.0\.1:\d+)")


@asynccontextmanager
async def gateway_of(pool: str, address: str) -> AsyncIterator[str]:
    """The address to call: `address` as it is without a pool (`NAMESPACE/NAME`), else a forwarded one.

    Raises:
        InputInvalid: the pool's name has another form.
        ClusterFailed: no such pool, no gateway, no kubectl, or no way through.
    """
    if not pool:
        yield address
        return
    from t2ictl.kube import open_cluster

    name = PoolName.parse(pool)
    async with open_cluster() as cluster:
        service = await cluster.gateway(name)
    async with forwarded(name.namespace, f"service/{service}") as reached:
        yield reached


@asynccontextmanager
async def forwarded(namespace: str, resource: str) -> AsyncIterator[str]:
    """A local address that leads to the gRPC port of `service/NAME` or `pod/NAME`.

    Raises:
        ClusterFailed: no kubectl, or no way through.
    """
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        raise ClusterFailed(
            "kubectl is not in PATH: install it, or reach the gateway yourself and give --address instead of --pool"
        )
    process = await asyncio.create_subprocess_exec(
        kubectl,
        *("port-forward", "--address=127.0.0.1", f"--namespace={namespace}", resource, f":{GRPC_PORT}"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield await _opened(process, f"{namespace}/{resource.partition('/')[2]}")
    finally:
        await _stop(process)


async def _opened(process: asyncio.subprocess.Process, what: str) -> str:
    """The local address, once kubectl names it."""
    said = ""
    try:
        async with asyncio.timeout(START_S):
            while process.stdout is not None and (line := (await process.stdout.readline()).decode()):
                said += line
                if found := _FORWARDING.search(line):
                    return found.group(1)
    except TimeoutError as error:
        raise ClusterFailed(f"port-forward to {what} was not there within {START_S:.0f} s: {said.strip()}") from error
    raise ClusterFailed(f"port-forward to {what} failed: {said.strip() or 'kubectl said nothing'}")


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(STOP_S):
            await process.communicate()
    except TimeoutError:
        process.kill()
        await process.communicate()
