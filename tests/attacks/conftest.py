"""Two pools that differ in one field: latents private to tenants, and latents shared, where attacks must succeed."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from attacked_tenants import LINES, PLANTED, SECRETS
from t2i_testing_kit.cached_prompts import seed_store
from t2i_testing_kit.secured_pool import TOKEN, SecuredPool

STEP_S = 1e-5


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def private(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SecuredPool]:
    """The default: scope Tenant."""
    folder = tmp_path_factory.mktemp("private")
    await seed_store(folder / "latents", "p", {"victim": SECRETS, "attacker": PLANTED})
    async with SecuredPool(folder, TOKEN, tokens=LINES, step_s=STEP_S) as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SecuredPool]:
    """Scope Pool, with consent: the control that shows that these attacks work where nothing stands in their way."""
    folder = tmp_path_factory.mktemp("shared")
    await seed_store(folder / "latents", "p", {"all": [*SECRETS, *PLANTED]}, "Pool")
    cache = "scope: Pool, sharedBetweenTenants: true"
    async with SecuredPool(folder, TOKEN, tokens=LINES, step_s=STEP_S, cache=cache) as started:
        yield started
