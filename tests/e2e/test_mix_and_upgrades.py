"""Changes that people make while requests come: another mix, new pods, nodes that are emptied. Nobody may notice."""

import asyncio
import functools
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from statistics import fmean

import pytest

from e2e_cluster import Cluster, ClusterError, is_ready, until
from e2e_load import Load, Outcome, prompts, recovery_s, steady, summary
from e2e_pools import SYSTEM, RunningPool
from e2e_report import record

#: A thousand requests in each scenario, on workers that make 20 exact images/s.
pytestmark = [pytest.mark.timeout(900), pytest.mark.parametrize("simulated", [2], indirect=True)]
REQUESTS = 1050
LASTS_S, MIX_LASTS_S = 75.0, 12.0
FOLLOWED = 0.95  # a backlog may bend one request or another further
SLO_S = 6.0
USUAL_S = 3.0  # twice an exact image on one of these workers, and then some for a busy machine
Work = Callable[[Load], Awaitable[None]]


async def under_load(pool: RunningPool, seconds: float, work: Work) -> list[Outcome]:
    """Steady load; `work` runs beside it and may take as long as it likes, the load goes on for `seconds`."""
    load = Load(pool.service_address)
    instants = steady(REQUESTS / seconds, seconds)
    async with asyncio.TaskGroup() as group:
        sending = group.create_task(load.run(instants, prompts(len(instants))))
        await asyncio.sleep(3)  # the usual state, to compare with
        await work(load)
    return sending.result()


async def test_mix_change_under_load(simulated: RunningPool) -> None:
    """From exact to 4 steps and back, by hand: labels, every gateway and the images follow within seconds, nothing
    restarts, no request fails.
    """
    mixes = {"3x0": {"skippedSteps": 0, "workers": 3}, "3x0/4": {"numInferenceSteps": 4, "workers": 3}}
    changes = (("3x0", "0-of-12", (0, 12)), ("3x0/4", "0-of-4", (0, 4)), ("3x0", "0-of-12", (0, 12)))

    def pods() -> set[str]:
        return {pod["metadata"]["uid"] for pod in simulated.pods("worker") + simulated.pods("gateway")}

    def followed(mix: str, level: str) -> bool:
        status, labels = simulated.status(), [pod["metadata"]["labels"] for pod in simulated.pods("worker")]
        gateways = [pod["metadata"]["name"] for pod in simulated.pods("gateway")]
        revisions = {simulated.metrics(name)[("t2i_gateway_plan_revision", "")] for name in gateways}
        at_level = all(one.get("t2iserving.dev/level") == level for one in labels)
        return status.get("mix") == mix and at_level and revisions == {status["plan"]["revision"]}

    before, restarts, took, changed_s = pods(), simulated.restarts(), list[float](), list[float]()

    async def change(load: Load) -> None:
        for mix, level, _ in changes:
            changed_s.append(load.now_s())
            await asyncio.to_thread(simulated.change, {"mix": {"mode": "Fixed", "workers": [mixes[mix]]}})
            holds = functools.partial(followed, mix, level)
            took.append(round(await asyncio.to_thread(until, f"everything follows {mix}", holds, 60), 1))
            await asyncio.sleep(MIX_LASTS_S)

    def served_follows_s(number: int) -> float:
        """From a change to the first request from which on nearly all are served so, until the next change."""
        until_s = [*changed_s, LASTS_S][number + 1]
        here = [one for one in outcomes if changed_s[number] <= one.at_s < until_s]
        for first, one in enumerate(here):
            if fmean(other.served == changes[number][2] for other in here[first:]) >= FOLLOWED:
                return round(one.at_s - changed_s[number], 1)
        raise AssertionError(f"the images do not follow change {number}: {Counter(one.served for one in here)}")

    outcomes = await under_load(simulated, LASTS_S, change)
    served_follow = [served_follows_s(number) for number in range(1, len(changes))]
    record(
        "mix change under load",
        "simulated",
        **summary(outcomes, SLO_S),
        restarts=simulated.restarts() - restarts,
        recovery_s=recovery_s(outcomes, changed_s[1], USUAL_S),
        followed_s=took[1:],
        served_follows_s=served_follow,
    )
    simulated.change({"mix": {"mode": "Auto", "workers": []}})
    assert pods() == before
    assert simulated.restarts() == restarts
    assert all(one.ok for one in outcomes), summary(outcomes, SLO_S)
    assert max(*took, *served_follow) < 15


async def roll(pool: RunningPool, component: str, start: Callable[[], None], within_s: float) -> float:
    """Start an upgrade and wait until every pod of the component is another one and Ready; seconds."""
    before = {pod["metadata"]["uid"] for pod in pool.pods(component)}
    count, begin = len(before), time.monotonic()
    await asyncio.to_thread(start)

    def rolled() -> bool:
        pods = pool.pods(component)
        return len(pods) == count and all(is_ready(pod) and pod["metadata"]["uid"] not in before for pod in pods)

    await asyncio.to_thread(until, f"{component} pods are new", rolled, within_s)
    return round(time.monotonic() - begin, 1)


async def test_rolling_upgrade_of_everything_under_load(cluster: Cluster, release: str, simulated: RunningPool) -> None:
    """Workers, gateways and operators are replaced one after the other: no accepted request is lost."""
    took: dict[str, float] = {}
    fault_s = 0.0

    async def upgrade(load: Load) -> None:
        nonlocal fault_s
        fault_s = load.now_s()
        group = dict(simulated.cluster.get(f"t2ip/{simulated.name}", f"--namespace={simulated.namespace}"))
        (workers,) = group["spec"]["workerGroups"]
        workers["template"]["annotations"] = {"example.com/upgraded": "yes"}
        took["worker"] = await roll(simulated, "worker", lambda: simulated.change({"workerGroups": [workers]}), 240)
        slo = {"slo": {"latencyMilliseconds": 6001}}  # gateways read it at their start
        took["gateway"] = await roll(simulated, "gateway", lambda: simulated.change(slo), 240)
        begin = time.monotonic()
        mark = "--set=operator.podAnnotations.example\\.com/upgraded=yes"
        chart = "charts/t2i-serving"
        arguments = ("upgrade", release, chart, f"--namespace={SYSTEM}", "--reuse-values", "--wait", mark)
        await asyncio.to_thread(cluster.helm, *arguments)
        took["operator"] = round(time.monotonic() - begin, 1)

    outcomes = await under_load(simulated, 120, upgrade)
    record(
        "rolling upgrade of workers, gateways, operators",
        "simulated",
        **summary(outcomes, SLO_S),
        restarts=simulated.restarts(),
        recovery_s=recovery_s(outcomes, fault_s, USUAL_S),
        rolled_s=took,
    )
    assert sum(one.lost for one in outcomes) == 0, summary(outcomes, SLO_S)
    assert all(one.ok for one in outcomes), summary(outcomes, SLO_S)


async def test_gateway_template_under_load(simulated: RunningPool) -> None:
    """Gateways that are placed and configured by the pool's template: workers stay, no request is lost, and taking the
    template back leaves nothing behind.
    """
    template = {"nodeSelector": {"kubernetes.io/os": "linux"}, "env": [{"name": "NO_PROXY", "value": ".svc"}]}
    workers = {pod["metadata"]["uid"] for pod in simulated.pods("worker")}
    took: list[float] = []
    placed: list[bool] = []

    async def change(_: Load) -> None:
        for one in (template, dict.fromkeys(template)):
            spec = {"gateway": {"template": one}}
            took.append(await roll(simulated, "gateway", functools.partial(simulated.change, spec), 240))
            pods = [pod["spec"] for pod in simulated.pods("gateway")]
            named = [{entry["name"] for entry in pod["containers"][0]["env"]} for pod in pods]
            placed.append(all(pod.get("nodeSelector") == template["nodeSelector"] for pod in pods))
            placed.append(all("NO_PROXY" in names for names in named))

    outcomes = await under_load(simulated, LASTS_S, change)
    record("gateway template under load", "simulated", **summary(outcomes, SLO_S), rolled_s=took)
    assert placed == [True, True, False, False]
    assert {pod["metadata"]["uid"] for pod in simulated.pods("worker")} == workers
    assert all(one.ok for one in outcomes), summary(outcomes, SLO_S)


async def test_eviction_respects_the_budget(cluster: Cluster, simulated: RunningPool) -> None:
    """As a drain does: one worker may go; the second is refused until the first one's successor is Ready."""
    answers: list[bool] = []
    fault_s = came_back_s = 0.0

    def evict(pod: str) -> bool:
        eviction = f'{{"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {{"name": "{pod}"}}}}'
        path = f"/api/v1/namespaces/{simulated.namespace}/pods/{pod}/eviction"
        try:
            cluster.kubectl("create", f"--raw={path}", "--filename=-", stdin=eviction)
        except ClusterError as error:
            if "disruption budget" not in str(error):
                raise
            return False
        return True

    async def drain(load: Load) -> None:
        nonlocal fault_s, came_back_s
        names = [pod["metadata"]["name"] for pod in simulated.pods("worker")]
        fault_s = load.now_s()
        answers.extend([await asyncio.to_thread(evict, name) for name in names[:2]])
        all_ready = lambda: simulated.ready("worker") == len(names)  # noqa: E731
        came_back_s = await asyncio.to_thread(until, "the evicted worker is replaced", all_ready, 120)
        answers.append(await asyncio.to_thread(evict, names[1]))
        await asyncio.to_thread(until, "the second one too", all_ready, 120)

    outcomes = await under_load(simulated, 75, drain)
    record(
        "eviction against the disruption budget",
        "simulated",
        **summary(outcomes, SLO_S),
        restarts=simulated.restarts(),
        recovery_s=recovery_s(outcomes, fault_s, USUAL_S),
        replaced_s=round(came_back_s, 1),
        evictions=["granted" if answer else "refused" for answer in answers],
    )
    assert answers == [True, False, True]
    assert all(one.ok for one in outcomes), summary(outcomes, SLO_S)
