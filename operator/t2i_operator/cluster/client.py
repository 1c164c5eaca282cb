"""The connection to the API server, by kubeconfig or service account."""

import os
from pathlib import Path

from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config import load_incluster_config, load_kube_config
from kubernetes.aio.config.config_exception import ConfigException

CONNECTIONS = 64
PROXY_VARIABLES = {"http_proxy", "https_proxy", "all_proxy"}


async def open_client(kubeconfig: Path | None) -> ApiClient:
    """A client; close it. Without a file: the pod's service account, else the user's own kubeconfig.

    Raises:
        ConfigException: no usable credentials.
    """
    configuration = Configuration()
    configuration.connection_pool_maxsize = CONNECTIONS
    if not any(name.lower() in PROXY_VARIABLES for name in os.environ):
        configuration.client_session_kwargs = {"trust_env": False}  # or ~/.netrc is read at every call
    if kubeconfig is not None:
        await load_kube_config(config_file=str(kubeconfig), client_configuration=configuration)  # type: ignore[no-untyped-call]
    else:
        try:
            load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        except ConfigException:
            await load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    return ApiClient(configuration)
