"""Pools on a real API server."""

import pytest

from t2i_testing_kit.crd.documents import Pools
from t2i_testing_kit.kube.server import KubeServer


@pytest.fixture
def pools(kube: KubeServer, namespace: str) -> Pools:
    """A fresh namespace's pools."""
    return Pools(kube, namespace)
