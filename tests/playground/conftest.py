"""A real browser, and real pools with the playground on."""

import logging
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright

from playground_pages import Visit, base_of
from t2i_testing_kit.browser.assets import BrowserProgram, ensure_browser
from t2i_testing_kit.debian_program import ProgramMissing
from t2i_testing_kit.serving import TWO_SIZES, PoolFiles, WritePool
from t2ictl.local_pool import LocalOptions, LocalPool

log = logging.getLogger(__name__)


@pytest.fixture(scope="session")
def program() -> BrowserProgram:
    """Chromium; fetched where there is none."""
    try:
        return ensure_browser(log.info)
    except ProgramMissing as error:
        pytest.fail(str(error))


@pytest.fixture(scope="session")
def write_pool(tmp_path_factory: pytest.TempPathFactory) -> WritePool:
    """Write the files of a pool of one worker and two sizes, unless asked otherwise."""

    def write(**asked: Any) -> LocalOptions:
        options = PoolFiles(**{"workers": 1, "sizes": TWO_SIZES, **asked}).write(tmp_path_factory.mktemp("pool"))
        return replace(options, listen_http="127.0.0.1:0", playground=True)

    return write


@pytest.fixture(scope="module")
def options(write_pool: WritePool) -> LocalOptions:
    """Of the module's pool, unless the module says otherwise."""
    return write_pool()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool(options: LocalOptions) -> AsyncIterator[LocalPool]:
    """Shared by the tests of a module."""
    async with LocalPool(options) as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(program: BrowserProgram) -> AsyncIterator[Browser]:
    """Shared by the tests of a module."""
    async with async_playwright() as driver:
        path, variables = str(program.path), {**os.environ, **program.variables}
        started = await driver.chromium.launch(executable_path=path, env=variables, args=["--no-sandbox"])
        yield started
        await started.close()


@pytest_asyncio.fixture(loop_scope="module")
async def visit(browser: Browser, pool: LocalPool) -> AsyncIterator[Visit]:
    """A fresh page of the module's pool."""
    page = await browser.new_page(viewport={"width": 1360, "height": 960})
    opened = Visit(page, base_of(pool))
    await opened.open()
    yield opened
    await page.close()
