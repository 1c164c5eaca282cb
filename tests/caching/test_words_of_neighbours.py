"""What a gateway knows of a neighbour's words: digests in its entry's name, and nothing of another tenant's prompts."""

from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from example_pools import EXAMPLES
from t2i_api.parse import parse_pool
from t2i_cache.stores import MemoryStore
from t2i_gateway.metrics import GatewayMetrics
from t2i_gateway.neighbours import LatentPrefix, NeighbourIndex
from t2i_gateway.request import ImageRequest
from t2i_policy.image_size import ImageSize
from t2i_policy.request.options import Limits
from t2i_protos.v1 import level_pb2, worker_pb2
from t2i_sources.embedder import Embedding

MODEL = worker_pb2.WorkerDescription(model_digest="m", noise_scheduler="euler", num_inference_steps=12, dtype="fp32")
ALIKE = Embedding(np.ones(4, np.float32) / 2, "embedder")  # as an embedder puts twins
SAID, TWIN, PARAPHRASE = "a red cube on a blue ball", "a blue cube on a red ball", "a scarlet box on an azure ball"


class Gateway:
    """The victim's run of SAID is cached, under the entry of today or of before."""

    def __init__(self, scope: str = "Tenant", of_before: bool = False) -> None:
        shared = ", sharedBetweenTenants: true" if scope == "Pool" else ""
        document = (EXAMPLES / "pool-scenes.yaml").read_text().replace("scope: Tenant", f"scope: {scope}{shared}")
        self.similar = NeighbourIndex(parse_pool(document), MemoryStore(), GatewayMetrics(CollectorRegistry()))
        shelf = self.shelf("victim", SAID)
        self.similar.note_asked(shelf, "victim")
        if of_before:
            shelf = LatentPrefix(shelf.scope, shelf.model, shelf.prompt_id, shelf.seed, shelf.embedder)
        self.similar.stored(shelf, ALIKE, [(12, 100)], "worker")

    def shelf(self, tenant: str, prompt: str, seed: int = 42) -> Any:
        asked = ImageRequest(
            "id", False, prompt, "", seed, 2.0, level_pb2.OUTPUT_FORMAT_PNG, Limits(0.1), 0, ImageSize(48, 48)
        )
        return self.similar.prefix(asked, tenant, MODEL, ALIKE)

    def agrees(self, tenant: str, prompt: str, seed: int = 1) -> bool | None:
        shelf = self.shelf(tenant, prompt, seed)
        return self.similar.words_agree(shelf, tenant, self.similar.nearest(shelf, ALIKE))


def test_neighbours_words_agree_or_differ() -> None:
    """However near the embedder puts them; the same prompt with another seed agrees."""
    gateway = Gateway()
    found = [gateway.agrees("victim", prompt) for prompt in (PARAPHRASE, TWIN, SAID, "ein Hund und eine Katze")]
    assert found == [True, False, True, None]


def test_entries_of_before_are_unknown_and_still_found() -> None:
    """Their words are not known; their own prompt and seed still lead to the same image, another seed to another."""
    gateway = Gateway(of_before=True)
    assert [gateway.agrees("victim", prompt) for prompt in (PARAPHRASE, TWIN, SAID)] == [None, None, True]
    for seed, told in ((42, (True, False)), (43, (False, True))):
        shelf = gateway.shelf("victim", SAID, seed)
        near = gateway.similar.nearest(shelf, ALIKE)
        same = gateway.similar.holds_same_image(shelf, "victim", near)
        assert (same, gateway.similar.repeats(shelf, "victim", near)) == told


def test_the_same_image_is_found_among_equally_near_entries() -> None:
    """Which of them is drawn at random must not decide, also where the run is one of before."""
    gateway = Gateway(of_before=True)
    for prompt in (TWIN, PARAPHRASE):
        gateway.similar.stored(gateway.shelf("victim", prompt), ALIKE, [(12, 100)], "worker")
    shelf = gateway.shelf("victim", SAID)
    found = [gateway.similar.nearest(shelf, ALIKE) for _ in range(20)]
    assert all(gateway.similar.holds_same_image(shelf, "victim", near) for near in found)


@pytest.mark.parametrize("prompt", [PARAPHRASE, TWIN, SAID])
def test_shared_latents_do_not_tell_anothers_words(prompt: str) -> None:
    """Which words agree would be told by what is served; who asked for the neighbour itself may know."""
    gateway = Gateway("Pool")
    assert gateway.agrees("spy", prompt) is None
    assert gateway.agrees("victim", prompt) is (prompt != TWIN)


def test_entry_names_hold_no_words() -> None:
    """Digests of 16 bits that differ between tenants; the prompt's own digest stands first, as before."""
    gateway = Gateway()
    mine, theirs = (gateway.shelf(tenant, SAID).entry_id.split("-") for tenant in ("victim", "other"))
    assert [len(part) for part in mine] == [32, 16, 12]
    assert not {mine[2][at : at + 4] for at in (0, 4, 8)} & {theirs[2][at : at + 4] for at in (0, 4, 8)}
