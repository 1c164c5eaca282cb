"""The page with the embedded model: an image out of noise, and the same seed out of the cache."""

import pytest
from playwright.async_api import expect

from playground_pages import Visit
from t2i_testing_kit.serving import WritePool
from t2ictl.local_pool import LocalOptions

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.process]
PROMPT = "a big red circle left of a small blue square on a plain green background"


@pytest.fixture(scope="module")
def options(write_pool: WritePool) -> LocalOptions:
    """One worker that really draws, with time enough on a busy machine."""
    return write_pool(step_s=0.05, slo_ms=60_000, engine="diffusion")


async def test_the_image_comes_out_of_noise_and_again_from_the_cache(visit: Visit) -> None:
    """Three previews, the image, its reason; the same seed then begins from the cached latent, and says so."""
    strip = visit.page.locator("#strip li")
    await visit.draw(PROMPT)
    await visit.done()
    assert await strip.all_inner_texts() == ["step 5", "step 10", "step 15", "done"]
    pictures = await strip.locator("img").evaluate_all("images => images.map((image) => image.src)")
    assert len(set(pictures)) == 4
    assert await visit.told("Skipped") == "Nothing. Every step ran."

    await visit.page.get_by_role("button", name="Draw again with the same seed").click()
    await visit.done()
    assert (await visit.told("Why")).startswith("This prompt ran with this seed before")
    assert (await visit.told("Skipped")).startswith("10 of 20 steps: it began from a cached image.")
    assert await visit.told("Nearest cached prompt") == "This prompt ran with this seed."
    await expect(visit.page.locator(".tile", has_text="Began from the cache").locator("b")).to_have_text("50 %")
    assert visit.complaints == []
