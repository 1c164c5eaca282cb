"""A pool of real processes with simulated workers that serves HTTP too, and the official client for it."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import openai
import pytest
import pytest_asyncio

from http_clients import client_of
from t2i_testing_kit.serving import TWO_SIZES, PoolFiles, WritePool
from t2ictl.local_pool import LocalOptions, LocalPool


@pytest.fixture(scope="session")
def write_pool(tmp_path_factory: pytest.TempPathFactory) -> WritePool:
    """Write the files of a pool of one worker and two sizes, unless asked otherwise."""

    def write(**asked: Any) -> LocalOptions:
        asked = {"workers": 1, "sizes": TWO_SIZES, **asked}
        return replace(PoolFiles(**asked).write(tmp_path_factory.mktemp("pool")), listen_http="127.0.0.1:0")

    return write


@pytest.fixture(scope="module")
def options(write_pool: WritePool) -> LocalOptions:
    """Of the module's pool: a fast simulated worker, unless the module says otherwise."""
    return write_pool()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool(options: LocalOptions) -> AsyncIterator[LocalPool]:
    """A worker and a gateway, shared by the tests of a module."""
    async with LocalPool(options) as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def client(pool: LocalPool) -> AsyncIterator[openai.AsyncOpenAI]:
    """A client of the module's pool."""
    async with client_of(pool) as one:
        yield one
