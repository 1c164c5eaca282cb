"""Asking the API server about pools, with the user's own kubeconfig, else the pod's service account. All of it reads,
but for a profile, which `t2ictl profile --pool NAMESPACE/NAME` writes into its ConfigMap.

Import it where it is needed: the Kubernetes client takes its time, which `t2ictl generate --address` need not wait for.
"""

import base64
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from kubernetes.aio.client import ApiClient, ApiException, CoreV1Api, CustomObjectsApi
from kubernetes.aio.config.config_exception import ConfigException

from t2i_api.names import COMPONENT_LABEL, GATEWAY, GROUP, PLURAL, POOL_LABEL, VERSION, WORKER
from t2i_runtime.kube.client import open_client
from t2ictl.cluster import PoolName, PoolSeen
from t2ictl.errors import ClusterFailed

LIMIT_S = 15.0
PROFILE_KEY = "profile.json"  # as the operator reads it
FIELD_MANAGER = "t2ictl-profile"


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

    async def document(self, name: PoolName) -> dict[str, Any]:
        """The pool as it was applied.

        Raises:
            ClusterFailed: there is none, or see `pools`.
        """
        call = self._pools.get_namespaced_custom_object(
            GROUP, VERSION, name.namespace, PLURAL, name.name, _request_timeout=LIMIT_S
        )
        found: dict[str, Any] = await _asked(call, f"pool {name}")
        return found

    async def ready_workers(self, name: PoolName) -> list[str]:
        """Names of the pods of the pool's workers that are ready.

        Raises:
            ClusterFailed: there is none, or see `pools`.
        """
        labels = f"{POOL_LABEL}={name.name},{COMPONENT_LABEL}={WORKER}"
        call = self._core.list_namespaced_pod(name.namespace, label_selector=labels, _request_timeout=LIMIT_S)
        pods: Any = await _asked(call, "pods")
        ready = [
            str(pod.metadata.name)
            for pod in pods.items
            if any(one.type == "Ready" and one.status == "True" for one in pod.status.conditions or ())
        ]
        if not ready:
            raise ClusterFailed(f"pool {name} has no ready worker to measure on: see `t2ictl cluster pools`")
        return sorted(ready)

    async def profile(self, name: PoolName, config_map: str) -> str | None:
        """The profile's text in a ConfigMap; None: no such ConfigMap, or none in it.

        Raises:
            ClusterFailed: see `pools`.
        """
        call = self._core.list_namespaced_config_map(
            name.namespace, field_selector=f"metadata.name={config_map}", _request_timeout=LIMIT_S
        )
        found: Any = await _asked(call, "ConfigMaps")
        return (found.items[0].data or {}).get(PROFILE_KEY) if found.items else None

    async def write_profile(self, name: PoolName, config_map: str, text: str) -> None:
        """Put it into the ConfigMap, which is made if there is none; its other keys stay.

        Raises:
            ClusterFailed: no right to write ConfigMaps, an immutable one, or see `pools`.
        """
        body = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": config_map, "namespace": name.namespace},
            "data": {PROFILE_KEY: text},
        }
        call = self._core.patch_namespaced_config_map(
            config_map,
            name.namespace,
            body,
            field_manager=FIELD_MANAGER,
            force=True,
            _content_type="application/apply-patch+yaml",
            _request_timeout=LIMIT_S,
        )
        await _asked(call, f"writing ConfigMap {config_map}", "ask for the right to patch ConfigMaps in that namespace")

    async def secret(self, namespace: str, secret: str) -> dict[str, bytes]:
        """The files of a Secret.

        Raises:
            ClusterFailed: there is none, no right to read it, or see `pools`.
        """
        call = self._core.read_namespaced_secret(secret, namespace, _request_timeout=LIMIT_S)
        hint = "ask for the right to get that Secret, or give a folder with such a certificate as --tls-dir"
        found: Any = await _asked(call, f"Secret {secret}", hint)
        return {name: base64.b64decode(text) for name, text in (found.data or {}).items()}

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


async def _asked(call: Awaitable[Any], what: str, forbidden: str = "ask for the role `view` in that namespace") -> Any:
    try:
        return await call
    except ApiException as error:
        hints = {
            401: "log in again",
            403: forbidden,
            404: "check name and namespace; without the CRD, install the chart first",
        }
        raise ClusterFailed(f"{what}: {error.status} {error.reason}: {hints.get(error.status, 'try again')}") from error
    except (aiohttp.ClientError, TimeoutError) as error:
        raise ClusterFailed(f"{what}: the API server does not answer: {error or 'timeout'}") from error
