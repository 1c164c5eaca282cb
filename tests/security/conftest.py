"""Pools with security on, shared by the tests of a module."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from t2i_runtime.tokens import line_of, new_token
from t2i_testing_kit.secured_pool import MUTUAL, TOKEN, SecuredPool

ACME = new_token()
STEP_S = 0.15  # 20 steps take 3 s: long enough for a Secret to change under a running stream


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def token_pool(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SecuredPool]:
    """Clients have bearer tokens; gateway and worker have certificates."""
    folder = tmp_path_factory.mktemp("token")
    async with SecuredPool(folder, TOKEN, tokens=line_of(ACME, "acme"), step_s=STEP_S) as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mutual_pool(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SecuredPool]:
    """Clients have certificates."""
    async with SecuredPool(tmp_path_factory.mktemp("mutual"), MUTUAL) as started:
        yield started


@pytest.fixture
def acme() -> str:
    """A token of the tenant acme."""
    return ACME
