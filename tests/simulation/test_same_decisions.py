"""The simulator's shortcuts change no decision: remembered rules, pool snapshots, the cache's nearest."""

import random
from dataclasses import replace

import numpy as np
import pytest

from t2i_cache.catalogue import Catalogue
from t2i_cache.keys import LatentKey
from t2i_cache.stores import StoreLimits
from t2i_policy.pool_view import PoolView
from t2i_policy.predictor import CurvePoint, LevelPredictor, Predictor
from t2i_policy.profile import LevelProfile
from t2i_policy.request.decide import Rules, build_rules
from t2i_policy.request.options import NOWHERE, Limits, Neighbourhood
from t2i_simulated_pools import LADDER, step_profile
from t2i_simulator.cached_rules import CachedRules, build_cached_rules
from t2i_simulator.neighbours import CacheRules, PromptCache
from t2i_simulator.rivals.eviction import FIFO
from t2i_simulator.scenario import ServiceTarget
from t2i_simulator.similarity import CANDIDATES, PromptSimilarities
from t2i_simulator.stepping import SimulatedJob
from t2i_simulator.workers import Group, SimulatedPool

SKIPS = (4, 8)
DERIVED = ("ready", "steps_per_s", "slots", "free_slots", "in_flight", "owed_steps")


def test_decisions_are_those_of_the_policys_rules() -> None:
    """The one function that gateway and simulator call is not overridden."""
    assert CachedRules.decide is Rules.decide


STEPPED = step_profile()
CURVED = replace(
    STEPPED,
    predictor=Predictor(
        tuple(
            LevelPredictor(level, (CurvePoint(0.4, 0.3, 0.02), CurvePoint(1.0, 0.0, 0.01)), (), 100)
            for level in LADDER.levels
            if level.needs_latent
        )
    ),
)


@pytest.mark.parametrize("profile", [STEPPED, CURVED], ids=["bands", "predictor"])
def test_remembered_judgement_is_the_judgement(profile: LevelProfile) -> None:
    """Random similarities, holes in the cache and limits, band edges included: asked twice, equal both times."""
    draw = random.Random(3)
    plain, remembering = (
        build_rules(LADDER, profile, 30.0, 0.2),
        build_cached_rules(LADDER, profile, ServiceTarget(30.0, 0.2, 256)),
    )
    for _ in range(2000):
        similarity = draw.choice([draw.uniform(-1, 1), 0.7, 0.9, 1.0, -1.0])
        stored = frozenset(step for step in LADDER.skips if draw.random() < 0.7)
        near = draw.choice([NOWHERE, Neighbourhood(similarity, stored), Neighbourhood(similarity, stored)])
        limits = Limits(
            draw.choice([0.01, 0.2]), draw.choice([None, 4]), draw.random() < 0.1, draw.choice([None, None, 3])
        )
        assert remembering.judge(near, limits) == plain.judge(near, limits)


def test_snapshot_of_the_pool_is_what_it_would_be_from_scratch() -> None:
    """Through joins, ends, deaths, returns and new levels, derived totals included."""
    draw = random.Random(4)
    pool, now_s = SimulatedPool([Group("a", 2, step_profile()), Group("b", 2, step_profile((0.5, 0.9, 1.0)))]), 0.0
    for number in range(600):
        now_s += draw.uniform(0, 0.4)
        for worker in pool.workers:
            while worker.loop.due_s <= now_s:
                worker.loop.finish_due()
                pool.changed(worker)
        worker = draw.choice(pool.workers)
        if draw.random() < 0.1:
            worker.alive = not worker.alive
            worker.loop.die()
        elif worker.alive and worker.loop.in_flight < worker.batch_cap + 1:
            worker.loop.join(SimulatedJob(number, draw.randint(1, 6)), now_s)
        worker.level = draw.choice(LADDER.levels)
        pool.changed(worker)
        queued = draw.randint(0, 3)
        seen = pool.view(now_s, queued, 5 * queued)
        fresh = PoolView(seen.workers, queued, 5 * queued)
        assert seen == fresh
        assert [getattr(seen, name) for name in DERIVED] == [getattr(fresh, name) for name in DERIVED]
        assert seen.workers[worker.index] == worker.view(now_s)


@pytest.mark.parametrize("num", [30, 3 * CANDIDATES])
def test_nearest_is_the_catalogues(num: int) -> None:
    """Same entry (before near-equals are drawn from) and cosine as the gateway's catalogue, on a filling cache."""
    random_vectors = np.random.default_rng(num).normal(size=(num, 8))
    vectors = (random_vectors / np.linalg.norm(random_vectors, axis=1, keepdims=True)).astype(np.float32)
    limits = StoreLimits(1 << 30, 1e9)
    catalogue = Catalogue(limits)
    cache = PromptCache(PromptSimilarities(vectors), range(num), CacheRules(limits, 100, SKIPS))
    for prompt in range(num):
        theirs = catalogue.nearest("scope", "model", vectors[prompt], 0.0, 0.0)
        ours = cache.nearest(prompt, 0.0, 0.0)
        if theirs is None:
            assert ours.near == NOWHERE
        else:
            assert (str(ours.entry), ours.near.stored_steps) == (theirs.entry_id, frozenset(SKIPS))
            assert ours.near.similarity == pytest.approx(theirs.similarity, abs=1e-6)
        if prompt % 3 == 0:
            catalogue.record_stored(LatentKey("scope", "model", str(prompt), 0), vectors[prompt], [(10, 100)], 0.0)
            cache.store(prompt, 0.0)


def test_cache_keeps_its_cap() -> None:
    """Past the cap the oldest prompts go first under FIFO; a start from one that is gone skips nothing."""
    rules = CacheRules(StoreLimits(400, 1e9), 100, SKIPS, eviction=FIFO())
    cache = PromptCache(PromptSimilarities(np.eye(6, dtype=np.float32)), range(6), rules)
    for prompt in range(6):
        cache.store(prompt, float(prompt))
        assert cache.used_bytes <= 400
    assert cache.take(5, 8, 9.0) == 8
    assert cache.take(0, 8, 9.0) == 0


def test_old_entries_are_gone() -> None:
    """A latent lives for its time and no longer."""
    cache = PromptCache(
        PromptSimilarities(np.eye(2, dtype=np.float32)), [0, 1], CacheRules(StoreLimits(800, 10.0), 100, SKIPS)
    )
    cache.store(0, 0.0)
    assert cache.nearest(1, 10.0, 0.0).near != NOWHERE
    assert cache.nearest(1, 10.1, 0.0).near == NOWHERE
    assert (cache.used_bytes, cache.num_entries) == (0, 0)


@pytest.mark.parametrize(("own_repeats", "similarity"), [(True, 1.0), (False, 0.0)])
def test_cycled_prompt_finds_itself_only_if_allowed(own_repeats: bool, similarity: float) -> None:
    """Two prompts, cycled: the third request is the first prompt again."""
    rules = CacheRules(StoreLimits(8000, 1e9), 100, SKIPS, own_repeats=own_repeats)
    cache = PromptCache(PromptSimilarities(np.eye(2, dtype=np.float32)), [0, 1], rules)
    cache.store(0, 0.0)
    cache.store(1, 1.0)
    found = cache.nearest(2, 2.0, 0.0)
    assert found.near.similarity == pytest.approx(similarity)


@pytest.mark.parametrize("own_repeats", [True, False])
def test_prompt_asked_before_is_known_as_repeated(own_repeats: bool) -> None:
    """As the gateway remembers asked prompts: from the second request on, in its own cycle where cycles are apart."""
    cache = PromptCache(
        PromptSimilarities(np.eye(2, dtype=np.float32)),
        [0, 1, 0],
        CacheRules(StoreLimits(800, 1e9), 100, SKIPS, own_repeats=own_repeats),
    )
    repeated = [cache.nearest(request, 0.0, 0.0).near.repeated for request in range(6)]
    assert repeated == [False, False, True, own_repeats, own_repeats, True]
    assert cache.nearest(5, 0.0, 0.0).near.repeated
