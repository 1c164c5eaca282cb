"""`make screenshots`: the playground's pictures in docs/images, taken of a real local pool with the embedded model."""

import asyncio
import io
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from PIL import Image
from playwright.async_api import Page, ViewportSize, async_playwright

from t2i_testing_kit.browser.assets import ensure_browser
from t2ictl.local_pool import LocalOptions, LocalPool

POOL = Path("examples/pool-scenes.yaml")
OUT = Path("docs/images")
PROMPT = "a big red circle left of a small blue square on a plain green background"
SIZE: ViewportSize = {"width": 1360, "height": 940}
BURST_S = 40
TICKS = "22"  # of 20 for what the pool draws in full
TRIES = 40


def _say(text: str) -> None:
    sys.stderr.write(f"screenshots: {text}\n")


@asynccontextmanager
async def opened_page(options: LocalOptions, page: Page) -> AsyncIterator[None]:
    """The page of a fresh pool."""
    async with LocalPool(options, lambda name, state: _say(f"{name}: {state}")) as pool:
        await page.goto(f"http://{pool.http_address}/")
        await page.locator(".worker").first.wait_for()
        await page.get_by_label("Prompt").fill(PROMPT)
        yield
        await page.goto("about:blank")


async def draw(page: Page) -> str:
    """Draw, and give the status in the end."""
    await page.get_by_role("button", name="Draw", exact=True).click()
    await page.locator("#submit:enabled").wait_for(timeout=60_000)
    return await page.locator("#status").inner_text()


async def keep(page: Page, name: str) -> None:
    """Write a picture of the page, small."""
    await page.locator("h1").click()  # nothing is focused
    image = Image.open(io.BytesIO(await page.screenshot(full_page=True)))
    file = OUT / name
    few = image.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=3, dither=Image.Dither.NONE)
    few.save(file, optimize=True)
    _say(f"{file}: {file.stat().st_size >> 10} kB")


async def take_all(page: Page, impatient: Path) -> None:
    """At rest, in a burst, and refused by the pool `impatient`, in which nobody may wait."""
    options = LocalOptions(POOL, "127.0.0.1:0", listen_http="127.0.0.1:0", playground=True)
    async with opened_page(options, page):
        await draw(page)
        await page.wait_for_timeout(3000)
        await keep(page, "playground.png")
        await page.get_by_label("Requests a second").fill(TICKS)
        await page.wait_for_timeout(1000 * BURST_S)
        await page.get_by_role("button", name="Another example").click()
        await draw(page)
        await keep(page, "playground-burst.png")
    await page.emulate_media(color_scheme="dark")
    async with opened_page(replace(options, pool_file=impatient, max_batch=1), page):
        await draw(page)
        await page.get_by_label("Requests a second").fill("60")
        await page.wait_for_timeout(15_000)
        for _ in range(TRIES):
            if await draw(page) == "Not drawn.":
                break
        await keep(page, "playground-refused.png")


async def run(impatient: Path) -> None:
    """Start a browser and take them."""
    program = ensure_browser(_say)
    path = str(program.path)
    variables: dict[str, str | float | bool] = {**os.environ, **program.variables}
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=path, env=variables, args=["--no-sandbox"])
        page = await browser.new_page(viewport=SIZE)
        await take_all(page, impatient)
        await browser.close()


def main() -> None:
    """Take them all."""
    with tempfile.TemporaryDirectory() as folder:
        impatient = Path(folder) / "pool.yaml"
        impatient.write_text(POOL.read_text().replace("maxQueuedRequests: 256", "maxQueuedRequests: 0"))
        asyncio.run(run(impatient))


if __name__ == "__main__":
    main()
