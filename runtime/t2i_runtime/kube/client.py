"""The connection to the API server, by the pod's service account or a kubeconfig.

Only what a user's kubeconfig names may be behind a proxy of the environment; a pod's own API server never is.
"""

import os
from pathlib import Path

from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config import load_incluster_config, load_kube_config
from kubernetes.aio.config.config_exception import ConfigException

from t2i_runtime.proxies import asks_environment

CONNECTIONS = 64


async def open_client(kubeconfig: Path | None = None, *, user_first: bool = False) -> ApiClient:
    """A client; close it. A `kubeconfig` that is given is the only place that counts.

    Without one: the pod's service account, else the user's own kubeconfig; `user_first` turns that around.

    Raises:
        ConfigException: no usable credentials.
    """
    configuration = Configuration()
    configuration.connection_pool_maxsize = CONNECTIONS
    in_pod = kubeconfig is None and not user_first and _by_service_account(configuration)
    if not in_pod:
        # The package looks at the variable when it is imported, and not again.
        file = str(kubeconfig) if kubeconfig is not None else os.environ.get("KUBECONFIG")
        try:
            await load_kube_config(file, client_configuration=configuration)  # type: ignore[no-untyped-call]
        except ConfigException:
            in_pod = user_first and _by_service_account(configuration)
            if not in_pod:
                raise
    by_environment = not in_pod and asks_environment(configuration.host, os.environ)
    configuration.client_session_kwargs = {"trust_env": by_environment}
    return ApiClient(configuration)


def _by_service_account(configuration: Configuration) -> bool:
    try:
        load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    except ConfigException:
        return False
    return True
