"""Audits on a real node: what was promised is measured while the pool serves; nobody misses an auditor that dies."""

import asyncio
from collections.abc import Iterator

import pytest

from e2e_cluster import Cluster, until
from e2e_faults import kill
from e2e_load import Load, levels_of, prompts, steady, summary
from e2e_pools import RunningPool, namespace_of, pool_document, running_pool
from e2e_report import record
from t2i_policy.kept_promise import FEWEST_AUDITS

pytestmark = pytest.mark.timeout(900)
SHORT = {"numInferenceSteps": 6}
RATE_RPS, LASTS_S = 1.0, 60.0
SLO_S = 6.0
JUDGED = "t2i_audit_pairs_total", 'outcome="OK"'


@pytest.fixture(scope="module")
def audited(cluster: Cluster, release: str) -> Iterator[RunningPool]:
    """A worker that draws everything at half the schedule, and an auditor that wants to see all of it."""
    document = pool_document(
        "audited",
        levels=[{"skippedSteps": 0}, SHORT],
        mix={"mode": "Fixed", "workers": [{**SHORT, "workers": 1}]},
        workerGroups=[{"name": "cpu", "workers": 1}],
        gateway={"replicas": 1, "maxQueuedRequests": 64},
        quality={"judge": "scenes", "auditPerMille": 1000},
    )
    with namespace_of(cluster, "t2i-audits") as namespace, running_pool(cluster, namespace, document) as pool:
        until("the auditor is ready", lambda: pool.ready("auditor") == 1, 120)
        yield pool


def quality_kept(pool: RunningPool) -> dict[str, str]:
    """The condition."""
    return dict(pool.cluster.condition(pool.name, pool.namespace, "QualityKept"))


async def test_promise_is_measured_while_the_pool_serves(audited: RunningPool) -> None:
    """A minute of load; exact images are drawn in between, and the status says what came of it."""
    instants = steady(RATE_RPS, LASTS_S, seed=11)
    load = Load(audited.service_address, limit_s=60)
    outcomes = await load.run(instants, prompts(len(instants), seed=11))
    enough = lambda: audited.status().get("audits", {}).get("count", 0) >= FEWEST_AUDITS  # noqa: E731
    enough_s = await asyncio.to_thread(until, "enough audits are told", enough, 240)
    told = lambda: quality_kept(audited).get("status") in ("True", "False")  # noqa: E731
    await asyncio.to_thread(until, "the promise is judged", told, 90)
    status, condition = audited.status(), quality_kept(audited)
    record(
        "audits under load",
        "scenes",
        **summary(outcomes, SLO_S),
        restarts=audited.restarts(),
        recovery_s=None,
        enough_audits_after_s=round(enough_s, 1),
        audits=status["audits"]["count"],
        promised_percent=status["audits"]["promisedPercent"],
        measured_percent=status["audits"]["measuredPercent"],
        quality_kept=condition["status"],
        levels=levels_of(outcomes),
    )
    assert all(one.ok for one in outcomes), summary(outcomes, SLO_S)
    assert condition["reason"] in ("PromiseKept", "BelowPromise"), condition
    assert status["measuredQualityPercent"] == status["audits"]["measuredPercent"]


@pytest.mark.usefixtures("enterable")
async def test_killed_auditor_is_missed_by_nobody(cluster: Cluster, audited: RunningPool) -> None:
    """Requests do not notice; its successor goes on to judge."""
    instants = steady(RATE_RPS, LASTS_S, seed=12)
    load = Load(audited.service_address, limit_s=60)
    async with asyncio.TaskGroup() as group:
        sending = group.create_task(load.run(instants, prompts(len(instants), seed=12)))
        await asyncio.sleep(6)
        (victim,) = await asyncio.to_thread(audited.pods, "auditor")
        await asyncio.to_thread(kill, cluster, victim)
        again = lambda: audited.ready("auditor") == 1 and audited.restarts() == 1  # noqa: E731
        back_s = await asyncio.to_thread(until, "it is Ready again", again, 120)
    outcomes = sending.result()
    judged_s = await asyncio.to_thread(
        until, "its successor judges", lambda: audited.metric("auditor", *JUDGED) > 0, 120
    )
    record(
        "auditor killed",
        "scenes",
        **summary(outcomes, SLO_S),
        restarts=audited.restarts(),
        recovery_s=round(back_s, 1),
        judged_after_s=round(judged_s, 1),
    )
    assert all(one.ok for one in outcomes), summary(outcomes, SLO_S)
    ready = cluster.condition(audited.name, audited.namespace, "Ready")
    assert ready.get("status") == "True", ready
