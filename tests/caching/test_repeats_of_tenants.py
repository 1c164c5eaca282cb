"""Which repeats a gateway knows: of the tenant's own requests, and never of what another tenant asked."""

from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from example_pools import EXAMPLES
from t2i_api.parse import parse_pool
from t2i_cache.stores import MemoryStore
from t2i_gateway.asked_prompts import AskedPrompts
from t2i_gateway.metrics import GatewayMetrics
from t2i_gateway.neighbours import NeighbourIndex
from t2i_gateway.request import ImageRequest
from t2i_policy.image_size import ImageSize
from t2i_policy.request.options import Limits
from t2i_protos.v1 import level_pb2, worker_pb2
from t2i_sources.embedder import Embedding

MODEL = worker_pb2.WorkerDescription(model_digest="m", noise_scheduler="euler", num_inference_steps=12, dtype="fp32")
WORDS = Embedding(np.ones(4, np.float32) / 2, "embedder")


class Gateway:
    """What one gateway knows of prompts. The victim's run of `a red circle` with seed 42 is cached."""

    def __init__(self, scope: str) -> None:
        shared = ", sharedBetweenTenants: true" if scope == "Pool" else ""
        document = (EXAMPLES / "pool-scenes.yaml").read_text().replace("scope: Tenant", f"scope: {scope}{shared}")
        store, metrics = MemoryStore(), GatewayMetrics(CollectorRegistry())
        self.similar = NeighbourIndex(parse_pool(document), store, metrics)
        self.draw("victim", 42)

    def shelf(self, tenant: str, seed: int) -> Any:
        asked = ImageRequest(
            "id", False, "a red circle", "", seed, 2.0, level_pb2.OUTPUT_FORMAT_PNG, Limits(0.1), 0, ImageSize(48, 48)
        )
        return self.similar.prefix(asked, tenant, MODEL, WORDS)

    def draw(self, tenant: str, seed: int) -> None:
        shelf = self.shelf(tenant, seed)
        self.similar.note_asked(shelf, tenant)
        self.similar.stored(shelf, WORDS, [(9, 100)], "worker")

    def told(self, tenant: str, seed: int) -> tuple[bool, bool]:
        """(the same image is cached, the prompt was asked before) as a decision hears it."""
        shelf = self.shelf(tenant, seed)
        neighbour = self.similar.nearest(shelf, WORDS)
        return (
            self.similar.holds_same_image(shelf, tenant, neighbour),
            self.similar.repeats(shelf, tenant, neighbour),
        )


@pytest.mark.parametrize("scope", ["Tenant", "Pool"])
async def test_own_requests_are_known(scope: str) -> None:
    """The same seed is the same image, another one is another take."""
    gateway = Gateway(scope)
    assert gateway.told("victim", 42) == (True, False)
    assert gateway.told("victim", 43) == (False, True)


async def test_shared_latents_do_not_tell_anothers_words_or_seed() -> None:
    """Asking for an explanation alone told a spy the exact prompt and the seed of another tenant's image."""
    gateway = Gateway("Pool")
    assert gateway.told("spy", 42) == gateway.told("spy", 43) == (False, False)


def test_memory_of_asked_prompts_is_bounded() -> None:
    """The prompt that was not asked for longest is forgotten first; one that is asked again is kept."""
    asked = AskedPrompts(most=2)
    for prompt in ("a", "b", "a", "c"):
        asked.note("tenant", prompt, 1)
    assert [asked.with_other_seed("tenant", prompt, 2) for prompt in "abc"] == [True, False, True]
    assert not asked.with_other_seed("other tenant", "a", 2)
