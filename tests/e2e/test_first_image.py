"""The way in: install, check the install, apply the example pool, draw images through the Service, look at them."""

import time

import pytest

from e2e_cluster import Cluster
from e2e_http import HttpLoad
from e2e_load import Load, levels_of, prompts, steady, summary
from e2e_pools import SYSTEM, namespace_of, running_pool
from e2e_report import record
from example_pools import EXAMPLES, documents
from t2i_profiler.images import to_pixels
from t2i_scenes import score_image

pytestmark = pytest.mark.timeout(900)
FLOOR = 0.6  # the embedded model's own score on unseen captions is about 0.8; noise of 24 images


def test_helm_test_passes(cluster: Cluster, release: str) -> None:
    """What the chart says of itself."""
    assert "Phase:          Succeeded" in cluster.helm("test", release, f"--namespace={SYSTEM}")


async def test_example_pool_draws_what_is_asked_for(cluster: Cluster, release: str) -> None:
    """`kubectl apply -f examples/pool.yaml`, Ready, and images that show what their captions say."""
    (document,) = documents(EXAMPLES / "pool.yaml")
    begin = time.monotonic()
    with namespace_of(cluster, "t2i-first") as namespace, running_pool(cluster, namespace, document) as pool:
        ready_s = time.monotonic() - begin
        load = Load(pool.service_address, limit_s=60)
        first = await load.run([0.0], prompts(1))
        first_image_s = time.monotonic() - begin
        assert [one.code for one in first] == ["OK"], first[0].message
        (by_http,) = await HttpLoad(pool.http_address, limit_s=60).run([0.0], prompts(1, seed=1))
        assert by_http.code == "OK", by_http.message
        assert to_pixels(by_http.image).shape == (48, 48, 3)
        load = Load(pool.service_address, limit_s=60)
        outcomes = await load.run(steady(1.0, 24, seed=3), prompts(40, seed=5, scenes=12))
        scores = [score_image(to_pixels(one.image), one.prompt.scene).quality for one in outcomes if one.ok]
        served = pool.metric("gateway", "t2i_gateway_served_level_total")
        drawn = pool.metric("worker", "t2i_worker_requests_total", 'code="OK"')
        restarted = pool.restarts()
        record(
            "first image and example pool",
            "scenes",
            **summary(outcomes, 1.5),
            restarts=restarted,
            recovery_s=None,
            ready_s=round(ready_s, 1),
            first_image_s=round(first_image_s, 1),
            mean_score=round(sum(scores) / len(scores), 3),
            levels=levels_of(outcomes),
        )
        assert all(one.ok or one.refused for one in outcomes), summary(outcomes, 1.5)
        assert restarted == 0
        assert sum(scores) / len(scores) > FLOOR
        assert served == len(scores) + 2
        assert drawn >= len(scores) + 2
