"""Asking the API server about pools: read only, with the user's own kubeconfig, else the pod's service account.

Import it where it is needed: the Kubernetes client takes its time, which `t2ictl generate --address` need not wait for.
"""

from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from kubernetes.aio.client import ApiClient, ApiException, CoreV1Api, CustomObjectsApi
from kubernetes.aio.config.config_exception import ConfigException

from t2i_api.names import COMPONENT_LABEL, GATEWAY, GROUP, PLURAL, POOL_LABEL, VERSION
from t2i_runtime.kube.client import open_client
from t2ictl.cluster import PoolName, PoolSeen
from t2ictl.errors import ClusterFailed

LIMIT_S = 15.0


class Cluster:
    """What the command line asks of an API server."""

    def __init__(self, client: ApiClient) -> None:
        self._pools = CustomObjectsApi(client)
        self._core = CoreV1Api(client)

    async def pools(self, namespace: str) -> list[PoolSeen]:
        """The pools of a namespace; empty = of all.

        Raises:
            ClusterFailed: the API server refuses or is away.
        """
        if namespace:
            call = self._pools.list_namespaced_custom_object(
                GROUP, VERSION, namespace, PLURAL, _request_timeout=LIMIT_S
            )
        else:
            call = self._pools.list_cluster_custom_object(GROUP, VERSION, PLURAL, _request_timeout=LIMIT_S)
        answer: Any = await _asked(call, "pools")
        return [PoolSeen.read(document) for document in answer["items"]]

    async def pool(self, name: PoolName) -> PoolSeen:
        """One pool.

        Raises:
            ClusterFailed: there is none, or see `pools`.
        """
        call = self._pools.get_namespaced_custom_object(
            GROUP, VERSION, name.namespace, PLURAL, name.name, _request_timeout=LIMIT_S
        )
        return PoolSeen.read(await _asked(call, f"pool {name}"))

    async def gateway(self, name: PoolName) -> str:
        """The name of the pool's gateway Service.

        Raises:
            ClusterFailed: there is none yet, or see `pools`.
        """
        labels = f"{POOL_LABEL}={name.name},{COMPONENT_LABEL}={GATEWAY}"
        call = self._core.list_namespaced_service(name.namespace, label_selector=labels, _request_timeout=LIMIT_S)
        services: Any = await _asked(call, "services")
        if services.items:
            return str(services.items[0].metadata.name)
        await self.pool(name)  # says so if that is what is missing
        raise ClusterFailed(f"pool {name} has no gateway yet: is the operator running? See `t2ictl cluster pools`")


@asynccontextmanager
async def open_cluster() -> AsyncIterator[Cluster]:
    """A connection for the time of the block.

    Raises:
        ClusterFailed: no kubeconfig and no service account.
    """
    try:
        client = await open_client(user_first=True)
    except ConfigException as error:
        raise ClusterFailed(f"no cluster: set KUBECONFIG ({error})") from error
    async with client:
        yield Cluster(client)


async def _asked(call: Awaitable[Any], what: str) -> Any:
    try:
        return await call
    except ApiException as error:
        hints = {
            401: "log in again",
            403: "ask for the role `view` in that namespace",
            404: "check name and namespace; without the CRD, install the chart first",
        }
        raise ClusterFailed(f"{what}: {error.status} {error.reason}: {hints.get(error.status, 'try again')}") from error
    except (aiohttp.ClientError, TimeoutError) as error:
        raise ClusterFailed(f"{what}: the API server does not answer: {error or 'timeout'}") from error
