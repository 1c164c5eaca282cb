"""Can the time of an answer tell whether another tenant's prompt is cached? A statistical test, with its power.

Time is measured as work, which no load disturbs: denoising steps run for the probe, and runs of the embedding model.
Everything else that a request does is the same code over the caller's own data. `bench/tenant_timing` repeats the
test on the wall clock.

Test: Fisher's exact test on the share of probes with less work, cached prompts against unknown ones, at 1 %. Power:
were only 4 % of hits to show, it would be found in at least 9 of 10 runs with these numbers (checked by drawing).
"""

import asyncio
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry
from scipy.stats import fisher_exact

from attacked_tenants import SECRETS, TENANTS
from t2i_gateway.embeddings import Embeddings
from t2i_gateway.metrics import GatewayMetrics
from t2i_scenes import embedder_path
from t2i_sources.embedder import Embedder
from t2i_testing_kit.cached_prompts import captions
from t2i_testing_kit.secured_pool import Caller, SecuredPool

PROBES, LEVEL, EFFECT, POWER = 300, 0.01, 0.04, 0.9
UNKNOWN = [prompt for prompt in captions(PROBES + 30, seed=9) if prompt not in SECRETS][:PROBES]


def p_value(fewer_cached: int, fewer_unknown: int) -> float:
    """That so many probes of each kind took less work, if the kinds are alike."""
    table = [[fewer_cached, PROBES - fewer_cached], [fewer_unknown, PROBES - fewer_unknown]]
    return float(fisher_exact(table).pvalue)


def test_power_is_as_stated() -> None:
    """Draws of a channel through which a twenty-fifth of the hits shows."""
    shown = np.random.default_rng(0).binomial(PROBES, EFFECT, 500)
    found = [p_value(int(number), 0) < LEVEL for number in shown]
    assert np.mean(found) >= POWER


async def _fewer_steps(caller: Caller, prompts: list[str]) -> int:
    """Probes that ran fewer steps than an unknown prompt of a tenant without latents does."""
    slots = asyncio.Semaphore(16)

    async def steps(prompt: str) -> int:
        async with slots:
            done = (await caller.generate(prompt, 120))[-1].done
        return int(done.served.num_inference_steps - done.served.skipped_steps)

    taken = await asyncio.gather(*(steps(prompt) for prompt in prompts))
    return sum(number < 20 for number in taken)


@pytest.mark.process
@pytest.mark.timeout(300)
@pytest.mark.asyncio(loop_scope="module")
async def test_steps_of_a_probe_do_not_tell(private: SecuredPool, shared: SecuredPool) -> None:
    """Alike with scope Tenant; in a pool that shares, the same test finds the difference."""
    for pool, alike in ((private, True), (shared, False)):
        prober = pool.caller(TENANTS["prober"])
        p = p_value(await _fewer_steps(prober, SECRETS), await _fewer_steps(prober, UNKNOWN))
        assert (p >= LEVEL) is alike, p


async def test_embedding_is_not_remembered_across_tenants(monkeypatch: pytest.MonkeyPatch) -> None:
    """A prompt that another tenant asked costs a run of the model, as a new one does; the caller's own costs none."""
    embedder, runs = Embeddings(str(embedder_path()), Path(), GatewayMetrics(CollectorRegistry())), []
    run = Embedder.embed_now
    monkeypatch.setattr(Embedder, "embed_now", lambda self, prompt: runs.append(prompt) or run(self, prompt))
    await embedder.embed("a red circle", "victim")
    for prompt in ("a red circle", "a green ring"):
        await embedder.embed(prompt, "prober")
    assert runs == ["a red circle", "a red circle", "a green ring"]
    await embedder.embed("a red circle", "victim")
    assert len(runs) == 3
    embedder.close()
