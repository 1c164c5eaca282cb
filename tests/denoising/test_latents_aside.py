"""A latent that waits for its image to be checked is in no store; few wait, and not for long."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from t2i_cache.stores import MemoryStore
from t2i_policy.level import Level
from t2i_worker.held_latents import KEEP_ASIDE_S, MAX_SET_ASIDE, LatentsAside
from t2i_worker.jobs import Job, ModelFacts, Sink
from t2i_worker.latents import LatentCache

FACTS = ModelFacts("digest", "flow", "float32", "cpu", 4, 1.0, 8, 8, 64, "diffusion")
JOB = Job("id", "a red circle", "", 7, 2.0, Level(0, 4), "png", sink=Sink("tenant", "entry", np.ones(3, np.float32)))
FINAL = torch.zeros(1, 4, 2, 2)


async def stored(store: MemoryStore) -> int:
    return len([item async for item in store.scan()])


async def test_latent_is_stored_when_it_is_asked_for_and_once() -> None:
    store = MemoryStore()
    latents = LatentCache(store, FACTS)
    held_id = latents.set_aside(JOB, FINAL)
    assert await stored(store) == 0
    assert await latents.keep_aside("another") == ()
    assert await stored(store) == 0
    assert [one.step for one in await latents.keep_aside(held_id)] == [4]
    assert await stored(store) == 1
    assert await latents.keep_aside(held_id) == ()


def test_oldest_go_when_too_many_wait() -> None:
    aside = LatentsAside(lambda: 0.0)
    ids = [aside.add(replace(JOB, seed=seed), FINAL) for seed in range(MAX_SET_ASIDE + 1)]
    assert aside.take(ids[0]) is None
    found = aside.take(ids[1])
    assert found is not None
    assert found.job.seed == 1


@pytest.mark.parametrize(("later_s", "is_there"), [(KEEP_ASIDE_S - 1, True), (KEEP_ASIDE_S + 1, False)])
def test_latent_waits_so_long_and_no_longer(later_s: float, is_there: bool) -> None:
    now_s = 0.0
    aside = LatentsAside(lambda: now_s)
    held_id = aside.add(JOB, FINAL)
    now_s = later_s
    assert (aside.take(held_id) is not None) == is_there
