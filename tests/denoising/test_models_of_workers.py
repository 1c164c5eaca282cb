"""A worker holds one of the pool's models: it draws the levels of that one alone, and stores latents of the own one."""

import asyncio
from dataclasses import replace

import grpc
import numpy as np
import pytest
import torch

from t2i_cache.stores import MemoryStore
from t2i_policy.level import Level
from t2i_protos.v1 import level_pb2, worker_pb2
from t2i_worker.errors import OtherModel
from t2i_worker.jobs import Job, ModelFacts, Sink
from t2i_worker.latents import LatentCache
from t2i_worker.status import to_status
from t2i_worker.validation import parse_request

OWN = ModelFacts("digest", "flow-euler", "float32", "cpu", 4, 2.0, 48, 48, 0, "diffusion")
TURBO = replace(OWN, model="turbo")


def asked(model: str) -> worker_pb2.WorkerGenerateRequest:
    level = level_pb2.Level(num_inference_steps=4, model=model)
    return worker_pb2.WorkerGenerateRequest(prompt="a", level=level, width=48, height=48)


@pytest.mark.parametrize(("facts", "model"), [(OWN, "turbo"), (TURBO, ""), (TURBO, "other")])
def test_level_of_another_model_is_refused(facts: ModelFacts, model: str) -> None:
    """Another worker may hold it, so the status lets the gateway ask there; the message names both models."""
    with pytest.raises(OtherModel) as refused:
        parse_request(asked(model), facts)
    status = to_status(refused.value)
    assert status.code is grpc.StatusCode.UNAVAILABLE
    assert (repr(model) if model else "own model") in status.details
    assert (repr(facts.model) if facts.model else "own model") in status.details


@pytest.mark.parametrize("facts", [OWN, TURBO])
def test_level_of_the_model_that_is_held_is_drawn(facts: ModelFacts) -> None:
    assert parse_request(asked(facts.model), facts).level == Level(0, 4, model=facts.model)


@pytest.mark.parametrize(("facts", "held"), [(OWN, 1), (TURBO, 0)])
def test_only_latents_of_the_pools_own_model_are_stored(facts: ModelFacts, held: int) -> None:
    """No level of another model starts from one, so it would only push others out; a metric counts them."""
    latents = LatentCache(MemoryStore(), facts)
    job = Job("id", "a", "", 0, 2.0, Level(0, 4, model=facts.model), "png")
    stored = asyncio.run(latents.keep(job, Sink("t", "e", np.ones(4, np.float32)), torch.zeros(1, 4)))
    assert len(stored) == held
    assert latents.not_kept == ({} if held else {"OtherModel": 1})
