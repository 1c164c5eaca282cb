"""A profile's bands of similarity are those of one embedder: prompts compared by another are not judged by them."""

import asyncio
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from t2i_gateway.embeddings import Embeddings
from t2i_gateway.metrics import GatewayMetrics
from t2i_policy.profile_document import parse_profile, render_profile
from t2i_sources import builtin_folder
from t2i_sources.embedder import load_embedder

SCENES = "builtin://scenes"
MISSING = "t2i_gateway_embedder_missing"


def embeddings(measured_with: str) -> tuple[Embeddings, CollectorRegistry]:
    registry = CollectorRegistry()
    return Embeddings(SCENES, Path(), GatewayMetrics(registry), measured_with), registry


@pytest.mark.parametrize("recorded", [True, False])
async def test_embedder_of_the_profile_is_used(recorded: bool) -> None:
    """Also where an older profile does not say which one that was."""
    found, registry = embeddings(load_embedder(SCENES, Path()).digest if recorded else "")
    assert await found.embed("a red circle", "t") is not None
    assert found.trouble == ""
    assert registry.get_sample_value(MISSING) == 0
    found.close()


async def test_another_embedder_is_not_used_and_it_is_said() -> None:
    """Requests go on without similar prompts; the trouble names what to do, and nothing is tried again."""
    found, registry = embeddings("another")
    await asyncio.wait_for(found.run(), 60)
    assert await found.embed("a red circle", "t") is None
    assert "t2ictl profile" in found.trouble
    assert registry.get_sample_value(MISSING) == 1
    found.close()


def test_builtin_profile_says_its_embedder() -> None:
    """And a profile that does is read back equal."""
    folder = builtin_folder(SCENES)
    assert folder is not None
    profile = parse_profile((folder / "profile.json").read_text())
    assert profile.embedder_digest == load_embedder(SCENES, Path()).digest
    assert parse_profile(render_profile(profile)) == profile
