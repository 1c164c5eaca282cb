"""The connection to the API server, by kubeconfig or service account."""

import os
from pathlib import Path

from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config import load_incluster_config, load_kube_config
from kubernetes.aio.config.config_exception import ConfigException

from t2i_runtime.proxies import asks_environment

CONNECTIONS = 64


async def open_client(kubeconfig: Path | None) -> ApiClient:
    """A client; close it. Without a file: the pod's service account, else the user's own kubeconfig.

    Raises:
        ConfigException: no usable credentials.
    """
    configuration = Configuration()
    configuration.connection_pool_maxsize = CONNECTIONS
    in_cluster = kubeconfig is None and _by_service_account(configuration)
    if not in_cluster:
        file = str(kubeconfig) if kubeconfig is not None else None
        await load_kube_config(config_file=file, client_configuration=configuration)  # type: ignore[no-untyped-call]
    by_environment = not in_cluster and asks_environment(configuration.host, os.environ)
    configuration.client_session_kwargs = {"trust_env": by_environment}
    return ApiClient(configuration)


def _by_service_account(configuration: Configuration) -> bool:
    try:
        load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    except ConfigException:
        return False
    return True
