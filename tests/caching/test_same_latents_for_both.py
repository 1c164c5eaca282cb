"""A gateway looks for a latent where a worker put it: if the two keys ever differed, every lookup would miss unseen."""

import pytest
import torch
from prometheus_client import CollectorRegistry

from example_pools import EXAMPLES
from t2i_api.parse import parse_pool
from t2i_cache.stores.memory import MemoryStore
from t2i_gateway.metrics import GatewayMetrics
from t2i_gateway.neighbours import NeighbourIndex
from t2i_gateway.request import ImageRequest
from t2i_policy.image_size import ImageSize
from t2i_policy.level import Level
from t2i_policy.request.options import Limits
from t2i_protos.v1 import level_pb2, worker_pb2
from t2i_sources.embedder import Embedding
from t2i_worker.jobs import Job, ModelFacts, Sink
from t2i_worker.latents import LatentCache

FACTS = ModelFacts("digest", "flow-euler", "float32", "cpu", 12, 2.0, 48, 64, 1024, "diffusion")
DESCRIPTION = worker_pb2.WorkerDescription(
    model_digest="digest", noise_scheduler="flow-euler", dtype="float32", num_inference_steps=12, width=48, height=64
)
WORDS = Embedding(torch.ones(4).numpy() / 2, "embedder")


@pytest.mark.parametrize("steps", [12, 4])
@pytest.mark.parametrize(("negative", "guidance"), [("", 2.0), ("blurry", 2.0), ("", 7.125)])
async def test_gateway_looks_where_the_worker_keeps(negative: str, guidance: float, steps: int) -> None:
    """Also what a short run leaves."""
    store = MemoryStore()
    index = NeighbourIndex(
        parse_pool((EXAMPLES / "pool-scenes.yaml").read_text()), store, GatewayMetrics(CollectorRegistry())
    )
    asked = ImageRequest(
        "id", False, "a cat", negative, 1, guidance, level_pb2.OUTPUT_FORMAT_PNG, Limits(0.1), 0, ImageSize(48, 64)
    )
    prefix = index.prefix(asked, "tenant", DESCRIPTION, WORDS)
    assert prefix is not None
    job = Job("id", "a cat", negative, 1, guidance, Level(0, steps), "png")
    sink = Sink(prefix.scope, prefix.entry_id, WORDS.vector, prefix.embedder)
    await LatentCache(store, FACTS).keep(job, sink, torch.zeros(1, 4))
    assert await store.get(prefix.key(prefix.entry_id, 12)) is not None
