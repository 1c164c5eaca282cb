"""The slider: load that the gateway makes bends what is served, and ends."""

import re

import pytest
from playwright.async_api import expect

from http_clients import http_of
from playground_pages import Visit
from t2i_testing_kit.serving import WritePool, until
from t2ictl.local_pool import LocalOptions, LocalPool

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.process]
SHORT = "10 steps instead of 20"


@pytest.fixture(scope="module")
def options(write_pool: WritePool) -> LocalOptions:
    """About ten exact images a second."""
    return write_pool(step_s=0.02, slo_ms=1500)


def served_short(visit: Visit) -> str:
    """Where the legend counts images of the short schedule."""
    return f"#legend li:has-text('{SHORT}') b"


async def test_the_slider_bends_the_mix_and_lets_go(visit: Visit, pool: LocalPool) -> None:
    """More than the pool can draw in full: shorter schedules appear. At 0 the load ends, and the page says so."""
    page = visit.page
    assert await page.locator(served_short(visit)).inner_text() == "0"
    await page.get_by_label("Requests a second").fill("40")
    await expect(page.locator("#load-value")).to_contain_text("2.00 × what the pool draws in full")
    await expect(page.locator(served_short(visit))).not_to_have_text("0")
    await expect(page.locator("#mix")).to_have_attribute("aria-label", re.compile(SHORT))
    await page.get_by_label("Requests a second").fill("0")
    await expect(page.locator("#load-told")).to_contain_text("Now none")
    assert visit.complaints == []


async def test_load_ends_with_the_page(visit: Visit, pool: LocalPool) -> None:
    """Whoever leaves leaves no load behind."""
    await visit.page.get_by_label("Requests a second").fill("10")
    await expect(visit.page.locator("#load-told")).to_contain_text("a second")
    await visit.page.goto("about:blank")
    await until("no load", lambda: load_rps(pool), lambda rps: rps == 0)


async def test_load_ends_where_nobody_renews_it(pool: LocalPool) -> None:
    """Also of a page that had no time to say so."""
    async with http_of(pool) as http:

        async def asked() -> float:
            """Each time anew: a look may come later than the load lasts."""
            answer = await http.post("/playground/load", json={"rps": 5, "prompts": ["a red circle"]})
            assert (answer.status_code, answer.json()) == (202, {"rps": 5.0, "renew_within_s": 5.0})
            return await load_rps(pool)

        await until("load", asked, lambda rps: rps == 5)
    await until("no load", lambda: load_rps(pool), lambda rps: rps == 0)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"rps": 5, "prompts": []}, "prompts"),
        ({"rps": -1, "prompts": ["a"]}, "rps"),
        ({"rps": 1001, "prompts": ["a"]}, "rps"),
        ({"rps": 1, "prompts": ["a"] * 201}, "prompts"),
        ({"rps": 1, "prompts": ["a" * 513]}, "prompts[0]"),
        ({"rps": 1, "prompts": ["a", " "]}, "prompts[1]"),
        ({"rps": 1, "prompts": ["a"], "tenant": "b"}, "tenant"),
    ],
)
async def test_load_out_of_bounds_is_refused(pool: LocalPool, body: dict[str, object], param: str) -> None:
    """Each bound, by name."""
    async with http_of(pool) as http:
        answer = await http.post("/playground/load", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


async def test_pages_of_other_sites_cannot_ask_for_load(pool: LocalPool) -> None:
    """They could send plain text without asking the gateway first."""
    async with http_of(pool) as http:
        answer = await http.post("/playground/load", content='{"rps": 1, "prompts": ["a"]}')
    assert answer.status_code == 415


async def load_rps(pool: LocalPool) -> float:
    """What the gateway sends now."""
    async with http_of(pool) as http:
        return float((await http.get("/v1/pool")).json()["load"]["rps"])
