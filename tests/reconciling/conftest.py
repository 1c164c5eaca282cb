"""A world per test: a fresh namespace on the real API server, with an operator at work in it."""

from collections.abc import AsyncIterator

import pytest

from operator_world import World, operator_settings, running_operator
from t2i_operator.server import Operator
from t2i_testing_kit.kube.server import KubeServer


@pytest.fixture
def world(kube: KubeServer, namespace: str) -> World:
    """The namespace alone, no operator."""
    return World(kube, namespace)


@pytest.fixture
async def operator(world: World) -> AsyncIterator[Operator]:
    """An operator of this namespace only."""
    async with running_operator(operator_settings(world.server, world.namespace)) as running:
        yield running


@pytest.fixture
def full_world(full_kube: KubeServer, full_namespace: str) -> World:
    """The same on a server with controllers: garbage is collected, StatefulSets make pods."""
    return World(full_kube, full_namespace)


@pytest.fixture
async def full_operator(full_world: World) -> AsyncIterator[Operator]:
    """An operator of that namespace."""
    async with running_operator(operator_settings(full_world.server, full_world.namespace)) as running:
        yield running
