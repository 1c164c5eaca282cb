"""Prompts that an embedder does not read whole lie apart: in the gateway's books and in the simulator's."""

import time
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from example_pools import EXAMPLES
from real_tokenizers import minilm_tokenizer
from t2i_api.parse import parse_pool
from t2i_cache.records import LatentRecord, encode_record
from t2i_cache.stores import open_store
from t2i_gateway.metrics import GatewayMetrics
from t2i_gateway.neighbours import LatentPrefix, NeighbourIndex
from t2i_gateway.request import ImageRequest
from t2i_policy.image_size import ImageSize
from t2i_policy.request.options import Limits
from t2i_protos.v1 import level_pb2, worker_pb2
from t2i_simulator.similarity import PromptSimilarities
from t2i_sources.embedder import Embedder, Embedding
from tiny_embedders import write_table

MODEL = worker_pb2.WorkerDescription(model_digest="m", noise_scheduler="euler", num_inference_steps=20, dtype="fp32")
PAIRS = {
    "Thai": ("แมวดำนั่งบนกำแพง", "ภูเขาหิมะยามพระอาทิตย์ตก"),
    "Khmer": ("ឆ្មាខ្មៅអង្គុយលើជញ្ជាំង", "ភ្នំមានព្រិល"),
    "Burmese": ("ကြောင်မည်း", "ရထားအနီ"),
    "Telugu": ("నల్ల పిల్లి", "మంచు కొండ"),
    "Gujarati": ("કાળી બિલાડી", "લાલ ટ્રેન"),
    "Amharic": ("ጥቁር ድመት", "ቀይ ባቡር"),
    "emoji alone": ("🐈🌙", "🚂🌉"),
    "one emoji": ("a cat 🐈", "a cat 🚂"),
    "an emoji more": ("a cat 🐈", "a cat"),
}


class Books:
    """A gateway's way to the cache, with the published tokenizer and a made-up model behind it."""

    def __init__(self, folder: Path) -> None:
        pool = parse_pool((EXAMPLES / "pool-scenes.yaml").read_text())
        metrics = GatewayMetrics(CollectorRegistry())
        self.store = open_store((folder / "latents").as_uri())
        self.similar = NeighbourIndex(pool, self.store, metrics)
        self.embedder = Embedder(write_table(folder / "embedder", minilm_tokenizer()))

    def look(self, prompt: str) -> tuple[LatentPrefix, Embedding]:
        """Where the prompt's latents belong."""
        asked = ImageRequest(
            "id", False, prompt, "", 1, 2.0, level_pb2.OUTPUT_FORMAT_PNG, Limits(max_loss=0.1), 0, ImageSize(48, 48)
        )
        embedding = self.embedder.embed_now(prompt)
        shelf = self.similar.prefix(asked, "tenant", MODEL, embedding)
        assert shelf is not None
        return shelf, embedding

    def found(self, prompt: str) -> str | None:
        """The entry that the prompt would start from."""
        neighbour = self.similar.nearest(*self.look(prompt))
        return None if neighbour is None else neighbour.entry_id

    async def draw(self, prompt: str) -> str:
        """As if a worker had drawn the prompt: its entry."""
        shelf, embedding = self.look(prompt)
        key = shelf.key(shelf.entry_id, 10)
        await self.store.put(
            key, encode_record(LatentRecord(key, "float32", (1,), bytes(4), embedding.vector, time.time()))
        )
        self.similar.stored(shelf, embedding, [(10, 100)], "w")
        return shelf.entry_id


@pytest.mark.parametrize(("one", "other"), PAIRS.values(), ids=PAIRS.keys())
async def test_only_the_identical_prompt_is_found(one: str, other: str, tmp_path: Path) -> None:
    """Also by a gateway that comes later and reads the store."""
    books = Books(tmp_path)
    entry = await books.draw(one)
    assert books.found(other) is None
    assert books.found(one) == entry
    again = Books(tmp_path)
    await again.similar.restore()
    assert (again.found(other), again.found(one)) == (None, entry)
    assert await again.draw(other) != entry
    assert again.found(one) == entry


async def test_prompts_that_are_read_find_each_other_as_before(tmp_path: Path) -> None:
    """Case and accents are similar by right."""
    books = Books(tmp_path)
    entry = await books.draw("a red café")
    await books.draw("a red café 🐈")
    assert [books.found(prompt) for prompt in ("a red café", "A Red Cafe", "a red cat")] == [entry] * 3


def test_simulated_prompts_that_are_not_read_are_like_themselves_alone() -> None:
    """A row of zeros is the encoder's word for them; the others do not see it."""
    vectors = np.array([[1, 0], [0, 0], [0, 0], [0.8, 0.6]], np.float32)
    similarities = PromptSimilarities(vectors)
    everything = bytearray([1, 1, 1, 1])
    assert list(similarities.nearest(1, everything)) == [(1, 1.0)]
    assert list(similarities.nearest(1, bytearray([1, 0, 1, 1]))) == []
    assert list(similarities.nearest(1, everything, without=1)) == []
    assert [other for other, _ in similarities.nearest(0, everything)] == [0, 3]
    assert list(similarities.nearest(0, bytearray([0, 1, 1, 0]))) == []
