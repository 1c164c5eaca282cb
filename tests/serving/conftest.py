"""A pool of real processes with simulated workers: everything but the denoising itself."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from t2i_testing_kit.serving import Client, PoolFiles, WritePool
from t2ictl.local_pool import LocalOptions, LocalPool


@pytest.fixture(scope="session")
def write_pool(tmp_path_factory: pytest.TempPathFactory) -> WritePool:
    """Write the files of a pool, as asked."""

    def write(**asked: Any) -> LocalOptions:
        return PoolFiles(**asked).write(tmp_path_factory.mktemp("pool"))

    return write


@pytest.fixture(scope="module")
def options(write_pool: WritePool) -> LocalOptions:
    """Of the module's pool: two fast simulated workers, unless the module says otherwise."""
    return write_pool()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool(options: LocalOptions) -> AsyncIterator[LocalPool]:
    """Workers and a gateway, shared by the tests of a module."""
    async with LocalPool(options) as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def client(pool: LocalPool) -> AsyncIterator[Client]:
    """A client of the module's pool."""
    one = Client(pool.address)
    yield one
    await one.channel.close()
