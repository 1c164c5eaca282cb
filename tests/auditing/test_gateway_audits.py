"""One audit of a gateway, from an idle worker to the auditor's answer, however it ends; and what corrections do."""

import asyncio
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest
from prometheus_client import CollectorRegistry

from t2i_api.parse import parse_pool
from t2i_gateway.audits import audit_loop, auditor_connection
from t2i_gateway.audits.audit_loop import AuditLoop, AuditOutcome
from t2i_gateway.audits.auditor_connection import AuditorConnection
from t2i_gateway.audits.corrections_feed import CorrectionsFeed
from t2i_gateway.audits.sampling import AuditSample
from t2i_gateway.context import RequestContext
from t2i_gateway.events import PassedChunk
from t2i_gateway.metrics import GatewayMetrics
from t2i_gateway.request import parse_request
from t2i_policy.corrections import Correction, Corrections
from t2i_policy.level import Ladder, Level
from t2i_policy.pool_view import OtherQueues, PoolView
from t2i_policy.request.admission import Admitted
from t2i_policy.request.audit_choice import AuditPromise
from t2i_policy.request.decide import Arrival, build_rules
from t2i_policy.request.options import NOWHERE
from t2i_protos.v1 import auditor_pb2, auditor_pb2_grpc, gateway_pb2, level_pb2, worker_pb2
from t2i_runtime.level_messages import level_message
from t2i_testing_kit.serving import POOL, STEPS, WITHIN_S, make_profile

EXACT, SHORT = Level(0, STEPS), Level(0, 10)
SPEC = parse_pool(POOL.format(embedder="", sizes="[]", workers=1, engine="simulated", slo_ms=5000, max_queued=4)).spec
RULES = build_rules(Ladder(STEPS, (EXACT, Level(10, STEPS), SHORT)), make_profile((0.001,)), 5.0, 0.2)
QUIET = PoolView((), 0, 0)
NOTHING = grpc.aio.Metadata()


def lost(code: grpc.StatusCode = grpc.StatusCode.RESOURCE_EXHAUSTED) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, NOTHING, NOTHING)


def chunk(data: bytes) -> PassedChunk:
    return PassedChunk(worker_pb2.WorkerEvent(chunk=level_pb2.ImageChunk(data=data)).SerializeToString())


def finished(level: Level = EXACT) -> worker_pb2.WorkerEvent:
    return worker_pb2.WorkerEvent(finished=worker_pb2.Finished(served=level_message(level)))


class PlayedWorkerCalls:
    """A connection to a worker: it is idle or not, and answers with these events, or fails."""

    name = "worker"

    def __init__(self, *events: Any, idle: bool = True, model: str = "") -> None:
        self.events = [*events, grpc.aio.EOF]
        self.model = model
        self.is_idle = idle
        self.asked: list[worker_pb2.WorkerGenerateRequest] = []
        self.cancelled = 0

    def generate(self, request: worker_pb2.WorkerGenerateRequest, limit_s: float) -> Any:
        assert 0 < limit_s < 600
        self.asked.append(request)
        return self

    async def read(self) -> Any:
        event = self.events.pop(0)
        if isinstance(event, Exception):
            raise event
        return event

    def cancel(self) -> None:
        self.cancelled += 1


class PlayedAuditor:
    """What the loop sees of an auditor."""

    def __init__(self, fails: Exception | None = None, can: bool | Exception = True) -> None:
        self.pairs: list[auditor_pb2.JudgeRequest] = []
        self._fails = fails
        self._can = can

    async def can_judge(self, prompt: str) -> bool:
        assert prompt
        if isinstance(self._can, Exception):
            raise self._can
        return self._can

    async def judge(self, request: auditor_pb2.JudgeRequest) -> auditor_pb2.JudgeResponse:
        self.pairs.append(request)
        if self._fails is not None:
            raise self._fails
        return auditor_pb2.JudgeResponse()


def sample(taken_s: float) -> AuditSample:
    request = parse_request(gateway_pb2.GenerateRequest(prompt="a prompt", seed=7, request_id="named"), SPEC)
    decided = RULES.decide(Arrival(request.limits, NOWHERE, 60.0, 0.0), PoolView((), 0, 0))
    context = RequestContext(request, "acme", 0.0, 60.0, None, None, None, decided, Admitted(1.0), STEPS)
    return AuditSample(context, AuditPromise(SHORT, None, 0.08, 0.05), (chunk(b"se"), chunk(b"rved")), taken_s)


def loop_of(worker: PlayedWorkerCalls, auditor: PlayedAuditor, view: PoolView = QUIET) -> AuditLoop:
    parts = SimpleNamespace(
        pool="pool",
        spec=SPEC,
        dispatchers=SimpleNamespace(of_model=lambda model: {"": SimpleNamespace(view=lambda: view)}[model]),
        workers=SimpleNamespace(connections=[worker]),
        neighbours=SimpleNamespace(reaches=lambda *_: False),
    )
    return AuditLoop(cast(Any, parts), cast(Any, auditor))


async def audited(loop: AuditLoop, age_s: float = 0.0) -> AuditOutcome:
    return await loop.audit(sample(asyncio.get_running_loop().time() - age_s))


async def test_the_exact_image_of_the_request_is_judged_beside_it() -> None:
    """Same prompt and seed, in the background, under no name of the client's; the auditor gets what was promised."""
    worker, auditor = PlayedWorkerCalls(chunk(b"ex"), chunk(b"act"), finished()), PlayedAuditor()
    assert await audited(loop_of(worker, auditor)) is AuditOutcome.JUDGED
    (asked,) = worker.asked
    assert (asked.prompt, asked.seed, asked.level, asked.background) == ("a prompt", 7, level_message(EXACT), True)
    assert (asked.request_id, asked.preview_every_steps, asked.HasField("gateway_queue")) == ("", 0, False)
    (pair,) = auditor.pairs
    assert (pair.image, pair.exact, pair.level) == (b"served", b"exact", level_message(SHORT))
    assert (pair.promised_loss, pair.profile_loss, pair.HasField("similarity")) == (0.08, 0.05, False)
    assert worker.cancelled == 1


@pytest.mark.parametrize(
    "events",
    [(lost(),), (chunk(b"half"), lost(grpc.StatusCode.DEADLINE_EXCEEDED)), (chunk(b"half"),), (finished(SHORT),)],
    ids=["refused", "late", "ended early", "not exact"],
)
async def test_without_an_exact_image_nothing_is_judged(events: tuple[Any, ...]) -> None:
    """The audit is given up, quietly."""
    auditor = PlayedAuditor()
    assert await audited(loop_of(PlayedWorkerCalls(*events), auditor)) is AuditOutcome.NOT_DRAWN
    assert auditor.pairs == []


async def test_an_auditor_that_does_not_answer_is_no_harm() -> None:
    """Nor is anything drawn for it, when that is known before."""
    auditor = PlayedAuditor(lost(grpc.StatusCode.UNAVAILABLE))
    assert await audited(loop_of(PlayedWorkerCalls(finished()), auditor)) is AuditOutcome.NOT_JUDGED
    worker, away = PlayedWorkerCalls(finished()), PlayedAuditor(can=lost(grpc.StatusCode.UNAVAILABLE))
    assert await audited(loop_of(worker, away)) is AuditOutcome.NOT_JUDGED
    assert worker.asked == []


async def test_no_exact_image_is_drawn_that_nobody_can_judge() -> None:
    """The scenes judge scores captions only. Such a prompt holds up no other audit; a bad pair neither."""
    worker = PlayedWorkerCalls(finished())
    assert await audited(loop_of(worker, PlayedAuditor(can=False))) is AuditOutcome.UNFIT
    assert worker.asked == []
    bad = PlayedAuditor(lost(grpc.StatusCode.INVALID_ARGUMENT))
    assert await audited(loop_of(worker, bad)) is AuditOutcome.UNFIT


@pytest.mark.parametrize(
    ("idle", "model", "view"),
    [
        (False, "", QUIET),
        (True, "turbo", QUIET),
        (True, "", PoolView((), 1, 20)),
        (True, "", PoolView((), 0, 0, None, 2, OtherQueues(1, 20, 1.0))),
    ],
    ids=["a request runs", "it holds another model", "one waits here", "one waits in another gateway"],
)
async def test_it_waits_for_a_worker_of_the_own_model_that_has_nothing_to_do(
    monkeypatch: pytest.MonkeyPatch, idle: bool, model: str, view: PoolView
) -> None:
    """And not for ever: an image from long ago says nothing of the pool as it is."""
    monkeypatch.setattr(audit_loop, "ROOM_EVERY_S", 0.0)
    worker = PlayedWorkerCalls(finished(), idle=idle, model=model)
    waiting = asyncio.ensure_future(audited(loop_of(worker, PlayedAuditor(), view)))
    for _ in range(20):
        await asyncio.sleep(0)
    assert worker.asked == []
    waiting.cancel()
    monkeypatch.setattr(audit_loop, "MAX_AGE_S", -1.0)
    assert await audited(loop_of(worker, PlayedAuditor(), view)) is AuditOutcome.EXPIRED


# Corrections.


class HeldRules:
    """Stands for the loop that holds the rules."""

    def __init__(self) -> None:
        self.rules = RULES
        self.changes = 0
        self.changed_twice = asyncio.Event()

    def decide_by(self, rules: Any) -> None:
        self.rules = rules
        self.changes += 1
        if self.changes == 2:
            self.changed_twice.set()


@pytest.fixture
def held() -> HeldRules:
    return HeldRules()


def feed_of(held: HeldRules, auditor: Any = None) -> CorrectionsFeed:
    return CorrectionsFeed(cast(Any, auditor), cast(Any, held), GatewayMetrics(CollectorRegistry()))


def told(revision: int, added: float | None = 0.1, profile: str = RULES.profile.losses_digest) -> Any:
    message = auditor_pb2.Corrections(revision=revision, profile=profile, next_within_ms=5000)
    if added is not None:
        message.corrections.add(level=level_message(SHORT), similarity_min=-1.0, added_loss=added)
    return message


def promised(held: HeldRules) -> float | None:
    return held.rules.profile.expected_loss(SHORT, None)


async def test_each_revision_replaces_the_one_before(held: HeldRules) -> None:
    """Also one without corrections, of an auditor that began anew. The same twice changes nothing."""
    feed = feed_of(held)
    for message, loss in ((told(1), 0.15), (told(1), 0.15), (told(2, 0.2), 0.25), (told(0, None), 0.05)):
        feed.take_in(message)
        assert promised(held) == pytest.approx(loss)
    assert held.changes == 3
    assert held.rules.classes.losses["none"][SHORT] == pytest.approx(0.05)


@pytest.mark.parametrize("message", [told(2, profile="another"), told(2, 0.9), told(2, float("nan"))])
async def test_what_cannot_be_used_leaves_what_is_in_force(held: HeldRules, message: Any) -> None:
    """Those of another profile, as gateways and auditor need not change at one instant; and nonsense."""
    feed = feed_of(held)
    feed.take_in(told(1))
    feed.take_in(message)
    assert held.rules.profile.corrections == Corrections(
        1, (Correction(SHORT, -1.0, 0.1),), RULES.profile.losses_digest
    )


class Tells(auditor_pb2_grpc.AuditorServicer):
    """An auditor that sends these and then ends the stream, or falls silent."""

    def __init__(self, *messages: Any, silent: bool = False) -> None:
        self._messages, self._silent = [*messages], silent
        self.calls = 0

    async def WatchCorrections(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self.calls += 1
        if self._messages:
            yield self._messages.pop(0)
        if self._silent:
            await asyncio.Event().wait()


@pytest.fixture
async def reach() -> AsyncIterator[Callable[[Tells], Any]]:
    servers, connections = [], []

    async def connect(auditor: Tells) -> AuditorConnection:
        server = grpc.aio.server()
        auditor_pb2_grpc.add_AuditorServicer_to_server(auditor, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        servers.append(server)
        connections.append(AuditorConnection(f"127.0.0.1:{port}", grpc.aio.insecure_channel))
        return connections[-1]

    yield connect
    for connection in connections:
        await connection.close()
    for server in servers:
        await server.stop(None)


async def test_an_auditor_that_comes_back_is_followed_again(held: HeldRules, reach: Any) -> None:
    """Each stream that ends is begun anew."""
    auditor = Tells(told(1), told(2, 0.2))
    running = asyncio.ensure_future(feed_of(held, await reach(auditor)).run())
    async with asyncio.timeout(WITHIN_S):
        await held.changed_twice.wait()
    running.cancel()
    assert promised(held) == pytest.approx(0.25)


async def test_silence_is_a_fault(monkeypatch: pytest.MonkeyPatch, reach: Any) -> None:
    """A stream that brings nothing for longer than it promised is given up; its certificate may have changed."""
    monkeypatch.setattr(auditor_connection, "FIRST_NEWS_LIMIT_S", 0.0)
    connection = await reach(Tells(silent=True))
    with pytest.raises(TimeoutError):
        await anext(connection.corrections())
    connection.renew()
    assert connection._closing
