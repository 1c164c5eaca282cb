"""The page in a real Chromium, over a real pool with a simulated worker."""

import json
import re

import pytest
from playwright.async_api import Browser, expect

from http_clients import http_of
from playground_pages import Visit, base_of
from t2i_testing_kit.serving import until
from t2ictl.local_pool import LocalPool

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.process]


async def test_an_image_comes_with_its_reason_in_sentences(visit: Visit) -> None:
    """Whoever tries the page learns what was decided, without a word of our code."""
    await visit.draw()
    await visit.done()
    image = visit.page.get_by_role("img", name="Drawn: a red circle")
    assert await image.evaluate("image => image.naturalWidth") == 48
    assert await visit.told("Served") == "Exact, all 20 steps."
    assert "Nothing similar is cached" in await visit.told("Why")
    assert "the target is 5.00 s" in await visit.told("Time")
    assert visit.complaints == []


async def test_the_same_seed_is_asked_for_again(visit: Visit) -> None:
    """The seed that was drawn is sent again, and the field stays as it was."""
    await visit.draw()
    await visit.done()
    seed = await visit.told("Seed")
    async with visit.page.expect_request("**/v1/images/generations") as asked:
        await visit.page.get_by_role("button", name="Draw again with the same seed").click()
    assert (await asked.value).post_data_json["seed"] == int(seed)
    await visit.done()
    assert await visit.told("Seed") == seed
    assert await visit.page.get_by_label("Seed").input_value() == ""


async def test_size_and_quality_are_the_pools(visit: Visit) -> None:
    """The sizes come from the pool; a choice is sent."""
    sizes = await visit.page.get_by_label("Size").locator("option").all_inner_texts()
    assert sizes == ["auto", "48x48", "72x48"]
    await visit.page.get_by_label("Size").select_option("72x48")
    await visit.page.get_by_label("Quality").select_option("high")
    await visit.draw()
    await visit.done()
    assert await visit.page.locator("#image").evaluate("image => image.naturalWidth") == 72
    assert await visit.told("Why") == "You asked for the highest quality."


async def test_a_seed_of_64_bits_keeps_its_digits(visit: Visit) -> None:
    """Numbers of JavaScript would round it."""
    await visit.page.get_by_label("Seed").fill("18446744073709551615")
    async with visit.page.expect_request("**/v1/images/generations") as asked:
        await visit.draw()
    assert '"seed":18446744073709551615' in ((await asked.value).post_data or "")
    await visit.done()
    assert await visit.told("Seed") == "18446744073709551615"


@pytest.mark.parametrize("seed", ["-3", "seven", "18446744073709551616"])
async def test_a_mistake_is_told_beside_its_field(visit: Visit, seed: str) -> None:
    """The gateway's own words, where the mistake is, with the focus there."""
    await visit.page.get_by_label("Seed").fill(seed)
    await visit.draw()
    await expect(visit.page.locator("#seed-problem")).to_contain_text("'seed'")
    await expect(visit.page.get_by_label("Seed")).to_be_focused()
    await expect(visit.page.get_by_label("Seed")).to_have_attribute("aria-invalid", "true")
    assert await visit.serious_findings() == []
    await visit.page.get_by_label("Seed").fill("")
    await visit.draw()
    await visit.done()
    await expect(visit.page.locator("#seed-problem")).to_be_empty()


async def test_an_empty_prompt_is_told_beside_it(visit: Visit) -> None:
    """The most common mistake."""
    await visit.draw("  ")
    await expect(visit.page.locator("#prompt-problem")).to_contain_text("must not be empty")


async def test_each_level_has_a_colour_of_its_own(visit: Visit) -> None:
    """The legend is how the bar and the columns are read."""
    marks = visit.page.locator("#legend i")
    await expect(marks).to_have_count(4)
    colours = await marks.evaluate_all("marks => marks.map((mark) => getComputedStyle(mark).backgroundColor)")
    assert len(set(colours)) == 4
    assert "rgba(0, 0, 0, 0)" not in colours


async def test_the_keyboard_alone_is_enough(visit: Visit) -> None:
    """From the top of the page to a new image, and to the slider."""
    page = visit.page
    for name in ("Another example", "Prompt", "Size", "Quality", "Seed"):
        await page.keyboard.press("Tab")
        focused = page.locator("*:focus")
        label = await focused.evaluate("one => one.labels?.length ? one.labels[0].textContent : one.textContent")
        assert label == name
        if name == "Prompt":
            await page.keyboard.press("Control+A")
            await page.keyboard.type("a blue ring")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await visit.done()
    await expect(page.get_by_role("img", name="Drawn: a blue ring")).to_be_visible()
    await page.get_by_role("button", name="Draw again with the same seed").focus()
    await page.keyboard.press("Tab")
    await expect(page.get_by_label("Requests a second")).to_be_focused()
    await page.keyboard.press("ArrowRight")
    await expect(page.locator("#load-value")).to_contain_text("what the pool draws in full")
    await page.keyboard.press("Home")
    await expect(page.locator("#load-value")).to_have_text("none")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1360, 390])
async def test_nobody_is_kept_out(browser: Browser, pool: LocalPool, scheme: str, width: int) -> None:
    """axe-core finds nothing serious, in light and dark, on a desk and on a phone. Nothing scrolls sideways."""
    page = await browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})  # type: ignore[arg-type]
    visit = Visit(page, base_of(pool))
    await visit.open()
    await visit.draw()
    await visit.done()
    assert await visit.serious_findings() == []
    assert await page.evaluate("document.documentElement.scrollWidth") <= width
    await page.close()


async def test_no_request_leaves_the_host(visit: Visit) -> None:
    """It works without a network, and tells nobody else what is drawn."""
    await visit.draw()
    await visit.done()
    assert visit.asked
    assert [url for url in visit.asked if not url.startswith((visit.base, "data:image/"))] == []


async def test_files_carry_a_strict_policy(pool: LocalPool) -> None:
    """Nothing but the gateway's own files may run or be shown. What did not change is not sent again."""
    async with http_of(pool) as http:
        for path in ("/", "/playground/main.js", "/playground/style.css"):
            answer = await http.get(path)
            policy = answer.headers["content-security-policy"]
            assert policy.startswith("default-src 'self'; img-src 'self' data: blob:;")
            assert "unsafe" not in policy
            again = await http.get(path, headers={"if-none-match": answer.headers["etag"]})
            assert (again.status_code, again.content) == (304, b"")
        html = (await http.get("/")).text
        assert re.findall(r"<script(?![^>]* src=)|<style| style=| on[a-z]+=", html) == []
        assert (await http.get("/playground/..%2f__init__.py")).status_code == 404


async def test_the_picture_names_no_prompt(visit: Visit, pool: LocalPool) -> None:
    """Of other callers it tells numbers only."""
    await visit.draw("a secret red circle")
    await visit.done()
    async with http_of(pool) as http:

        async def picture() -> str:
            return (await http.get("/v1/pool")).text

        text = await until("the worker is ready", picture, lambda text: states(text) == ["ready"])
    assert "secret" not in text
    assert json.loads(text)["levels"][0]["served"] > 0


def states(picture: str) -> list[str]:
    """How each worker is used."""
    return [one["state"] for one in json.loads(picture)["workers"]]
