"""Which images are kept for an audit, and that they never are too many."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry

from t2i_gateway.audits import sampling
from t2i_gateway.audits.sampling import AuditSamples
from t2i_gateway.events import PassedChunk
from t2i_gateway.metrics import GatewayMetrics
from t2i_policy.corrections import Correction, Corrections
from t2i_policy.level import Ladder, Level
from t2i_policy.pool_view import PoolView
from t2i_policy.request.audit_choice import audit_promise
from t2i_policy.request.decide import Arrival, Decided, build_rules
from t2i_policy.request.options import Limits, Neighbourhood
from t2i_policy.request.served import Served, ServedReason
from t2i_protos.v1 import worker_pb2
from t2i_runtime.level_messages import level_message
from t2i_testing_kit.serving import STEPS, make_profile

EXACT, SHORT, SKIP = Level(0, STEPS), Level(0, 10), Level(10, STEPS)
RULES = build_rules(Ladder(STEPS, (EXACT, SKIP, SHORT)), make_profile((0.001,)), 5.0, 0.5)
LIMITS = Limits(0.5)
NEAR = Neighbourhood(0.9, frozenset({10}))


def decided(level: Level, near: Neighbourhood = NEAR) -> Decided:
    """As the pool decides, but at this level."""
    found = RULES.decide(Arrival(LIMITS, near, 60.0, 0.0), PoolView((), 0, 0))
    return Decided(near, found.options, "", found.wanted, Served(level, 0.0, 0.0, ServedReason.LOAD), 0.0)


@pytest.mark.parametrize(
    ("says", "level", "limits", "near"),
    [
        ("exact images compare with nothing", EXACT, LIMITS, NEAR),
        ("nobody measured a schedule that the request fixes", SHORT, Limits(0.5, fixed_steps=10), NEAR),
        ("nobody measured levels for images drawn like this", SHORT, Limits(0.5, measured=False), NEAR),
        ("it is the exact image", SKIP, LIMITS, Neighbourhood(1.0, frozenset({10}), same_image=True)),
        ("nothing is promised without a neighbour", SKIP, LIMITS, Neighbourhood(None, frozenset())),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_no_promise_no_audit(says: str, level: Level, limits: Limits, near: Neighbourhood) -> None:
    assert audit_promise(decided(level, near), limits, RULES) is None, says


def test_a_promise_is_told_with_and_without_corrections() -> None:
    """Without diversity, which no pair of images shows."""
    rules = RULES.corrected(Corrections(1, (Correction(SHORT, -1.0, 0.1), Correction(SKIP, 0.8, 0.2))))
    short = audit_promise(decided(SHORT), LIMITS, rules)
    assert short is not None
    assert (short.similarity, short.promised_loss, short.profile_loss) == (None, pytest.approx(0.15), 0.05)
    again = Neighbourhood(0.995, frozenset({10}), repeated=True)
    skip = audit_promise(decided(SKIP, again), LIMITS, rules)
    assert skip is not None
    assert (skip.similarity, skip.promised_loss, skip.profile_loss) == (0.995, pytest.approx(0.201), 0.001)


# What waits.


def context(level: Level = SHORT) -> Any:
    return SimpleNamespace(decided=decided(level), request=SimpleNamespace(limits=LIMITS))


@pytest.fixture
def metrics() -> GatewayMetrics:
    return GatewayMetrics(CollectorRegistry())


def samples_of(metrics: GatewayMetrics, share: float = 0.5, drawn: float = 0.4) -> AuditSamples:
    return AuditSamples(share, metrics, lambda: drawn)


def serve(samples: AuditSamples, size: int = 10, level: Level = SHORT, ran: Level | None = None) -> None:
    watched = samples.watch(context(level), RULES)
    watched.begin()
    watched.take_in(PassedChunk(b"lost with its worker"))
    watched.begin()
    watched.take_in(PassedChunk(b"x" * size))
    watched.sent(worker_pb2.Finished(served=level_message(ran or level)))


def waiting(samples: AuditSamples) -> list[int]:
    return [sample.size_bytes for sample in samples._waiting]


async def test_so_many_of_a_thousand_are_taken(metrics: GatewayMetrics) -> None:
    """By a draw for each; without an auditor none."""
    for share, drawn, taken in ((0.5, 0.4, [10]), (0.5, 0.6, []), (0.0, 0.0, [])):
        samples = samples_of(metrics, share, drawn)
        serve(samples)
        assert waiting(samples) == taken


async def test_an_image_at_another_level_than_promised_is_not_kept(metrics: GatewayMetrics) -> None:
    """Its latent was missing, so it is exact."""
    samples = samples_of(metrics)
    serve(samples, level=SKIP, ran=EXACT)
    serve(samples, level=EXACT)
    assert waiting(samples) == []


async def test_one_that_was_not_sent_whole_is_not_kept(metrics: GatewayMetrics) -> None:
    samples = samples_of(metrics)
    samples.watch(context(), RULES).sent(None)
    assert waiting(samples) == []


async def test_the_oldest_goes_when_there_are_too_many(
    metrics: GatewayMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By number and by bytes; what went is counted."""
    monkeypatch.setattr(sampling, "MAX_SAMPLES", 2)
    monkeypatch.setattr(sampling, "MAX_BYTES", 100)
    samples = samples_of(metrics)
    for size in (10, 20, 30):
        serve(samples, size)
    assert waiting(samples) == [20, 30]
    serve(samples, 75)
    assert waiting(samples) == [75]
    serve(samples, 101)
    assert waiting(samples) == [75]
    assert metrics.audits.labels("displaced")._value.get() == 4
    assert (await samples.next()).size_bytes == 75
    serve(samples, 90)
    assert cast(Any, samples)._bytes == 90
