"""A visit to the playground in a real browser, for its tests."""

import re

from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page, expect

from t2ictl.local_pool import LocalPool

LIMIT_MS = 60_000
expect.set_options(timeout=LIMIT_MS)


class Visit:
    """A page that was opened, what it said on its console and whom it asked."""

    def __init__(self, page: Page, base: str) -> None:
        self.page = page
        self.base = base
        self.complaints: list[str] = []
        self.asked: list[str] = []
        page.set_default_timeout(LIMIT_MS)
        page.on("console", lambda message: self.complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))

    async def open(self) -> None:
        await self.page.goto(self.base)
        await expect(self.page.locator(".worker")).to_have_count(1)

    async def draw(self, prompt: str = "a red circle") -> None:
        """Draw it, by a click."""
        await self.page.get_by_label("Prompt").fill(prompt)
        await self.page.get_by_role("button", name="Draw", exact=True).click()

    async def done(self) -> None:
        """Until the image is there."""
        await expect(self.page.locator("#status")).to_have_text(re.compile("^Done"))

    async def told(self, heading: str) -> str:
        """What the story says under a heading."""
        found = self.page.locator("#story dt", has_text=heading).locator("xpath=following-sibling::dd[1]")
        return (await found.inner_text()).replace("\u00a0", " ")

    async def serious_findings(self) -> list[str]:
        """What axe-core finds that keeps somebody from using the page."""
        results = await Axe().run(self.page)
        found = results.response["violations"]
        return [f"{one['id']}: {one['help']}" for one in found if one["impact"] in ("serious", "critical")]


def base_of(pool: LocalPool) -> str:
    """Where the page is."""
    return f"http://{pool.http_address}/"
