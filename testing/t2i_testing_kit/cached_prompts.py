"""Latent stores as if tenants had asked before, and the prompts they asked: for pools of simulated workers."""

import hashlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from t2i_cache.keys import LatentKey, ModelKey
from t2i_cache.records import LatentRecord, encode_record
from t2i_cache.scope import ScopeMode, scope_id
from t2i_cache.stores import open_store
from t2i_scenes import caption, embedder_path, sample_scene
from t2i_sources.embedder import Embedder
from t2i_testing_kit.serving import STEPS

SKIP = 10


def captions(count: int, seed: int) -> list[str]:
    """So many different captions."""
    rng = np.random.default_rng(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        found[caption(sample_scene(rng), rng)] = None
    return list(found)


async def seed_store(folder: Path, pool: str, asked: Mapping[str, Sequence[str]], scope: ScopeMode = "Tenant") -> None:
    """One latent for each prompt of each tenant, under the key that the pool's gateway would give it."""
    store, embedder = open_store(folder.as_uri()), Embedder(embedder_path())
    model = ModelKey("test", "simulated", STEPS, 48, 48, 2000, "fp32", embedder=embedder.digest).fingerprint
    for tenant, prompts in asked.items():
        owner = scope_id(scope, pool, tenant)
        assert owner is not None
        for prompt in prompts:
            entry = hashlib.sha256(f"{owner}\x1f{model}\x1f{prompt}".encode()).hexdigest()[:32]
            key = LatentKey(owner, model, entry, SKIP)
            record = LatentRecord(key, "float32", (1,), bytes(4), embedder.embed_now(prompt).vector, time.time())
            await store.put(key, encode_record(record))
    await store.close()
