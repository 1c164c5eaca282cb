"""What a full pool, a gone gateway and a pool that wants tokens look like on the page."""

import asyncio
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from http_clients import http_of
from playground_pages import Visit, base_of
from t2i_runtime.tokens import line_of, new_token
from t2i_testing_kit.secured_pool import TOKEN, SecuredPool
from t2i_testing_kit.serving import WritePool, until
from t2ictl.local_pool import LocalOptions, LocalPool

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.process]


@pytest.fixture(scope="module")
def options(write_pool: WritePool) -> LocalOptions:
    """One place, nobody may wait, and an image takes longer than anybody here waits for anything."""
    return write_pool(step_s=5.0, cap=1, slo_ms=200_000, max_queued=0)


async def test_a_full_pool_says_when_to_come_back(visit: Visit, pool: LocalPool) -> None:
    """In a sentence, where the person looks."""
    async with http_of(pool) as http:
        other = asyncio.ensure_future(http.post("/v1/images/generations", json={"prompt": "a blue square"}))

        async def running() -> int:
            return int((await http.get("/v1/pool")).json()["workers"][0]["running"])

        await until("the place is taken", running, lambda seen: seen == 1)
        await visit.draw()
        await expect(visit.page.locator("#draw-problem")).to_contain_text("The pool is full. 0 requests")
        await expect(visit.page.locator("#draw-problem")).to_contain_text("Try again in")
        await expect(visit.page.locator("#status")).to_have_text("Not drawn.")
        await expect(visit.page.locator("#legend li", has_text="refused or failed").locator("b")).to_have_text("1")
        assert await visit.serious_findings() == []
        other.cancel()


class TokenPlayground(SecuredPool):
    """With the playground over TLS."""

    def gateway_arguments(self) -> list[str]:
        return [*super().gateway_arguments(), "--listen-http", "127.0.0.1:0", "--playground"]


async def test_a_pool_with_tokens_asks_for_one(browser: Browser, tmp_path: Path) -> None:
    """Only then is the field shown. A wrong token is told, a right one opens the page."""
    token = new_token()
    async with TokenPlayground(tmp_path, TOKEN, tokens=line_of(token, "kids")) as pool:
        context = await browser.new_context(ignore_https_errors=True)
        page = await context.new_page()
        await page.goto(f"https://{pool.gateway.http_address}/")
        field = page.get_by_label("Bearer token")
        await expect(field).to_be_focused()
        await field.fill("wrong")
        await page.keyboard.press("Enter")
        await expect(page.locator("#access-problem")).to_contain_text("not valid here")
        await field.fill(token)
        await page.keyboard.press("Enter")
        await expect(field).to_be_hidden()
        visit = Visit(page, "")
        await visit.draw()
        await visit.done()
        await context.close()


async def test_a_gateway_that_is_gone_is_told(browser: Browser, write_pool: WritePool) -> None:
    """The numbers on the page are old then."""
    async with LocalPool(write_pool()) as pool:
        page = await browser.new_page()
        visit = Visit(page, base_of(pool))
        await visit.open()
        await expect(page.locator("#pool-problem")).to_be_hidden()
    await expect(page.locator("#pool-problem")).to_contain_text("does not answer")
    await page.close()
