"""Pools on a real API server."""

import pytest

from kube_server import KubeServer
from pool_documents import Pools


@pytest.fixture
def pools(kube: KubeServer, namespace: str) -> Pools:
    """A fresh namespace's pools."""
    return Pools(kube, namespace)
