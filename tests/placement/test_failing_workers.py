"""Workers that fail what they are sent are left out and tried again; bad prompts and clients cost nobody its place."""

from collections.abc import Callable

import grpc
import pytest
from prometheus_client import CollectorRegistry

from played_workers import World, turns, world
from t2i_api.gateway import GatewayPart
from t2i_gateway.dispatch import Dispatcher
from t2i_gateway.metrics import GatewayMetrics
from t2i_gateway.workers.failures import RequestFailures, WorkerFailures
from t2i_policy.failure_streak import FAILURES_IN_A_ROW, Blame, FailureStreak
from t2i_policy.outliers import (
    FIRST_PAUSE_S,
    MAX_PAUSE_S,
    EjectedReason,
    HealthState,
    WorkerHealth,
    WorkReport,
    after_failure,
    after_image,
    judge,
    moves,
    usable,
)
from t2i_policy.policies import PromptAware

STEP_S = 0.1
INTERNAL, UNAVAILABLE = grpc.StatusCode.INTERNAL, grpc.StatusCode.UNAVAILABLE

STREAKS = {
    "three prompts that others drew": ([(1, Blame.WORKERS), (2, Blame.WORKERS), (3, Blame.WORKERS)], True),
    "one prompt that others drew each time": ([(1, Blame.WORKERS)] * 3, True),
    "two prompts that others drew": ([(1, Blame.WORKERS), (2, Blame.WORKERS)], False),
    "three prompts that nobody else tried": ([(1, Blame.OPEN), (2, Blame.OPEN), (3, Blame.OPEN)], True),
    "one prompt again and again that nobody else tried": ([(1, Blame.OPEN)] * 20, False),
    "one prompt again and again that fails everywhere": ([(1, Blame.OPEN), (1, Blame.SHARED)] * 20, False),
    "five prompts that fail everywhere": ([(n, Blame.SHARED) for n in range(5)], False),
    "six prompts that fail everywhere": ([(n, Blame.SHARED) for n in range(6)], True),
    "the third turns out to be a bad prompt": (
        [(1, Blame.WORKERS), (2, Blame.WORKERS), (3, Blame.OPEN), (3, Blame.SHARED)],
        False,
    ),
}


@pytest.mark.parametrize(("failures", "failing"), STREAKS.values(), ids=STREAKS.keys())
def test_worker_is_failing_from_three_on(failures: list[tuple[int, Blame]], failing: bool) -> None:
    """Its own count each time; those that may be the prompt's fault once a prompt, and half if others failed it too."""
    streak, health = FailureStreak(), WorkerHealth()
    for prompt, blame in failures:
        streak = streak.failed(prompt, blame)
        health = after_failure(health, prompt, blame, 0.0)
    assert streak.is_failing == failing
    assert (health.reason is EjectedReason.FAILING) == failing


def test_image_ends_the_streak() -> None:
    """Two failures, an image, two failures: no worker fails everything that does that."""
    health = WorkerHealth()
    for prompt in range(20):
        health = after_failure(health, prompt, Blame.WORKERS, 0.0)
        if prompt % 2:
            health = after_image(health, 0.0)
        assert health.state(0.0) is HealthState.GOOD


def failing_worker(now_s: float = 0.0) -> WorkerHealth:
    """One that is just out."""
    health = WorkerHealth()
    for prompt in range(FAILURES_IN_A_ROW):
        health = after_failure(health, prompt, Blame.WORKERS, now_s)
    return health


def test_steps_on_time_do_not_bring_a_failing_worker_back() -> None:
    """It may step well and fail at the image: only an image counts."""
    out = failing_worker()
    on_time = judge(out, WorkReport(), WorkReport(STEP_S, STEP_S), out.until_s)
    assert on_time.state(out.until_s) is HealthState.ON_TRIAL
    assert after_image(on_time, out.until_s).state(out.until_s) is HealthState.GOOD


def test_pause_grows_with_each_failed_trial() -> None:
    """2, 4, 8 s and so on up to a minute; one failure on trial is enough."""
    now_s, health, pauses_s = 0.0, failing_worker(), []
    for prompt in range(8):
        pauses_s.append(health.until_s - now_s)
        now_s = health.until_s
        health = after_failure(health, 100 + prompt, Blame.OPEN, now_s)
        health = after_failure(health, 100 + prompt, Blame.WORKERS, now_s)
    assert pauses_s == [min(MAX_PAUSE_S, FIRST_PAUSE_S * 2**n) for n in range(8)]


def test_prompt_that_fails_everywhere_decides_no_trial() -> None:
    """One tenant's poison kept a worker out for ever: each trial that met it was lost."""
    health = WorkerHealth()
    for prompt in range(6):
        health = after_failure(health, prompt, Blame.SHARED, 0.0)
    assert health.reason is EjectedReason.FAILING
    at_s = health.until_s
    again = after_failure(health, 3, Blame.OPEN, at_s)
    assert again.state(at_s) is HealthState.ON_TRIAL
    assert after_failure(health, 77, Blame.OPEN, at_s).state(at_s) is HealthState.EJECTED
    assert after_image(again, at_s).reason is EjectedReason.NONE


def test_failures_kept_are_bounded() -> None:
    """However long it fails, no more is remembered than is needed."""
    health = WorkerHealth()
    for prompt in range(1000):
        blame = (Blame.OPEN, Blame.SHARED, Blame.WORKERS)[prompt % 3]
        health = after_failure(health, prompt, blame, float(prompt))
    streak = health.failures
    assert streak.own + len(streak.open) + len(streak.shared) <= 4 * FAILURES_IN_A_ROW


def test_pool_of_failing_workers_has_nobody_to_serve() -> None:
    """Most of a pool may not be out for being slow, as the measure may be wrong; a failure is no measure."""
    failing = failing_worker()
    slow = WorkerHealth(ejections=1, until_s=9.0, reason=EjectedReason.SLOW_STEPS)
    assert set(usable({"a": failing, "b": failing}, 1.0).values()) == {HealthState.EJECTED}
    assert usable({"bad": failing, "slow": slow}, 1.0) == {"bad": HealthState.EJECTED, "slow": HealthState.ON_TRIAL}


def test_requests_that_have_not_begun_leave_a_failing_worker() -> None:
    """Those that run may end well."""
    assert moves(failing_worker(), 10, 10)
    assert not moves(failing_worker(), 9, 10)


class PlayedPool:
    """Healths by worker, judged by what comes of requests. Ten requests a second."""

    def __init__(self, *names: str) -> None:
        self.now_s = 0.0
        self.healths = {name: WorkerHealth() for name in names}
        self.failed_s: dict[str, list[float]] = {name: [] for name in names}
        self._failures = {name: self._make(name) for name in names}

    def _make(self, name: str) -> WorkerFailures:
        def take(health: WorkerHealth) -> None:
            self.healths[name] = health

        return WorkerFailures(lambda: self.healths[name], take, lambda: self.now_s)

    def send(self, number: int, fails: Callable[[str, int], bool], prompt: int | None = None) -> None:
        """Tried on every worker that takes requests until one draws it."""
        self.now_s = number / 10
        request = RequestFailures(number if prompt is None else prompt)
        for name, state in usable(self.healths, self.now_s).items():
            if state is HealthState.EJECTED:
                continue
            if not fails(name, number):
                request.drawn(self._failures[name])
                return
            self.failed_s[name].append(self.now_s)
            request.lost(self._failures[name], INTERNAL)

    def states(self) -> set[HealthState]:
        """How they may be used."""
        return {health.state(self.now_s) for health in self.healths.values()}


def test_broken_worker_costs_three_tries_and_then_one_a_pause() -> None:
    """Of 600 requests in a minute one of two workers fails all it gets: three, and one on trial after 2, 4, 8, 16 s."""
    pool = PlayedPool("bad", "good")
    for number in range(600):
        pool.send(number, lambda name, _: name == "bad")
    tries_s = pool.failed_s["bad"]
    assert tries_s[:3] == [0.0, 0.1, 0.2]
    assert tries_s[3:] == pytest.approx([2.2, 6.2, 14.2, 30.2], abs=0.11)
    assert pool.failed_s["good"] == []


def test_mended_worker_is_used_again() -> None:
    """Its trial is drawn, and from then on it takes its share."""
    pool = PlayedPool("mended", "good")
    for number in range(100):
        pool.send(number, lambda name, number: name == "mended" and number < 10)
    assert pool.states() == {HealthState.GOOD}


def test_all_broken_are_all_out() -> None:
    """Known by six prompts, as one or two could be bad ones."""
    pool = PlayedPool("a", "b")
    for number in range(20):
        pool.send(number, lambda *_: True)
    assert pool.states() == {HealthState.EJECTED}
    assert len(pool.failed_s["b"]) == 2 * FAILURES_IN_A_ROW


@pytest.mark.parametrize("every", [1, 2, 5])
def test_bad_prompt_takes_nobody_out(every: int) -> None:
    """It fails on every worker, each time it is sent: always, or with other prompts in between."""
    pool = PlayedPool("a", "b")
    for number in range(100):
        bad = number % every == 0
        pool.send(number, lambda *_, bad=bad: bad, prompt=7 if bad else None)  # type: ignore[misc]
        assert pool.states() == {HealthState.GOOD}
    assert len(pool.failed_s["b"]) == 100 // every


@pytest.mark.parametrize(
    "code",
    [code for code in grpc.StatusCode if code not in {INTERNAL, UNAVAILABLE, grpc.StatusCode.UNKNOWN}],
    ids=lambda code: code.name,
)
async def test_what_is_not_the_workers_fault_does_not_count(code: grpc.StatusCode) -> None:
    """Bad fields, cancels, deadlines, full queues."""
    async with world() as played:
        for prompt in range(20):
            RequestFailures(prompt).lost(played.connection.failures, code)
        played.pool.look()
        assert played.connection.health == WorkerHealth()


def _lose(played: World, code: grpc.StatusCode) -> None:
    for prompt in range(FAILURES_IN_A_ROW):
        RequestFailures(prompt).lost(played.connection.failures, code)


async def test_failing_worker_gets_nothing_and_is_told_of() -> None:
    """Its view is not ready, the ejection is counted, and its name comes with the reason."""
    async with world() as played:
        _lose(played, INTERNAL)
        assert not played.connection.view.ready
        assert played.ejections == [EjectedReason.FAILING]
        assert played.pool.left_out == {"first": EjectedReason.FAILING}


async def test_worker_on_trial_is_not_counted_among_those_that_serve() -> None:
    """It may take a request, so that it can prove itself; an alert on nobody that serves must not go away for that."""
    async with world() as played:
        metrics = GatewayMetrics(registry := CollectorRegistry())
        dispatcher = Dispatcher(PromptAware(), played.pool, GatewayPart(replicas=1), metrics)
        _lose(played, INTERNAL)
        played.connection.set_state(HealthState.ON_TRIAL)
        played.connection.changed()
        first, second = dispatcher.view().workers
        assert (first.ready, first.unproven, first.batch_cap) == (True, True, 1)
        assert (second.ready, second.unproven) == (True, False)
        assert registry.get_sample_value("t2i_gateway_ready_workers") == 1


async def test_unavailable_counts_of_a_worker_that_stays_ready() -> None:
    """At the next look it still says that it is ready, on the same connection: then it was its own answer."""
    async with world() as played:
        _lose(played, UNAVAILABLE)
        assert played.ejections == []
        played.pool.look()
        assert played.ejections == [EjectedReason.FAILING]


async def test_unavailable_of_a_draining_worker_does_not_count() -> None:
    """It says so itself before the next look."""
    async with world() as played:
        _lose(played, UNAVAILABLE)
        played.first.load.draining = True
        await played.pass_s(1.0)
        assert played.ejections == []


async def test_broken_connection_is_not_a_failing_worker() -> None:
    """The watch ends in the same moment as the requests, and a new one may have begun before the next look."""
    async with world() as played:
        _lose(played, UNAVAILABLE)
        played.first.watched.send(None)
        await turns()
        assert not played.connection.ready
        while not played.connection.ready:
            await turns()
        played.pool.look()
        assert played.ejections == []


@pytest.mark.parametrize("when", ["before", "after"])
async def test_image_that_another_worker_drew_blames_nobody_whose_connection_broke(when: str) -> None:
    """Whether the requests or the watch of the load end first."""
    async with world() as played:
        first, second = (connection.failures for connection in played.pool.connections)
        lost = [RequestFailures(number) for number in range(2 * FAILURES_IN_A_ROW)]
        if when == "after":
            played.first.watched.send(None)
            await turns()
        for one in lost:
            one.lost(first, UNAVAILABLE)
        if when == "before":
            played.first.watched.send(None)
            await turns()
        played.pool.look()
        while not played.connection.ready:
            await turns()
        for one in lost:
            one.drawn(second)
        played.pool.look()
        assert played.ejections == []
