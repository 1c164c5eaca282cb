"""Audits as an auditor tells them over the wire, with the real API server and everything else as in production."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from prometheus_client import CollectorRegistry

from operator_world import Document, World, condition, operator_settings, pool_document, running_operator, writes_of
from t2i_operator.audit_polling import EVERY_S, SILENT_S, AuditPoller
from t2i_operator.metrics import OperatorMetrics
from t2i_policy.corrections import parse_corrections
from t2i_policy.profile_document import parse_profile
from t2i_protos.v1 import auditor_pb2, auditor_pb2_grpc, level_pb2

KEPT = "ConfigMap/p-audits"
CHILDREN = {"NetworkPolicy/p-auditor", "Service/p-auditor", "Deployment/p-auditor"}
SKIP = level_pb2.Level(skipped_steps=6, num_inference_steps=12)


class TellingAuditor(auditor_pb2_grpc.AuditControlServicer):
    """An auditor that says what it is told to; silent if that is nothing."""

    def __init__(self) -> None:
        self.says: auditor_pb2.GetAuditsResponse | None = None
        self.asked = 0

    async def GetAudits(self, request: auditor_pb2.GetAuditsRequest, context: Any) -> auditor_pb2.GetAuditsResponse:
        """What it says now."""
        self.asked += 1
        if self.says is None:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "silent")
        return self.says

    def measured(self, count: int, promised: float, measured: float, error: float = 0.005) -> None:
        """So many audits of one level."""
        band = auditor_pb2.AuditedBand(
            level=SKIP, similarity_min=0.7, num_audits=count, promised_loss=1 - promised, measured_loss=1 - measured
        )
        self.says = auditor_pb2.GetAuditsResponse(
            num_audits=count,
            promised_quality=promised,
            measured_quality=measured,
            standard_error=error,
            bands=[band],
            judge="scenes 1",
            total_audits=count,
        )


@pytest.fixture
async def auditor() -> AsyncIterator[TellingAuditor]:
    """At a port of its own: `port`."""
    telling, server = TellingAuditor(), grpc.aio.server()
    auditor_pb2_grpc.add_AuditControlServicer_to_server(telling, server)
    telling.port = server.add_insecure_port("127.0.0.1:0")  # type: ignore[attr-defined]
    await server.start()
    yield telling
    await server.stop(None)


async def bring_up(world: World, auditor: Any, **quality: Any) -> None:
    """A ready pool whose auditor is the test's."""
    await world.create(pool_document(quality={"judge": "scenes", **quality}))
    await world.wait("children", world.children, lambda found: "Deployment/p-auditor" in found)
    await world.start_played_pod("Deployment/p-auditor", "127.0.0.1", auditor.port)
    await world.bring_up()
    await world.until_condition("Ready", "True")
    await world.until_condition("Progressing", "False")


@pytest.mark.usefixtures("operator")
async def test_condition_follows_what_was_measured(world: World, auditor: TellingAuditor) -> None:
    """Unknown, kept, broken, and Unknown again when the judge fails; the pool is ready all the time."""
    auditor.measured(3, 0.97, 0.9)
    await bring_up(world, auditor)
    await world.until_condition("QualityKept", "Unknown", "TooFewAudits")
    auditor.measured(40, 0.97, 0.965)
    kept = await world.until_condition("QualityKept", "True", "PromiseKept")
    assert "96.5% ± 1.0 measured in 40 audits, 97.0% promised" in kept["message"]
    status = (await world.pool())["status"]
    assert (status["measuredQualityPercent"], status["audits"]["count"]) == (96, 40)
    auditor.measured(80, 0.97, 0.9)
    await world.until_condition("QualityKept", "False", "BelowPromise")
    await world.wait("an event", world.event_reasons, lambda reasons: "BelowPromise" in reasons)
    auditor.says = auditor_pb2.GetAuditsResponse(trouble="the judge gave no score")
    failed = await world.until_condition("QualityKept", "Unknown", "JudgeFailed")
    assert "gave no score" in failed["message"]
    await world.delete_pod("p-auditor-0")
    await world.until_condition("QualityKept", "Unknown", "AuditorNotReady")
    assert condition(await world.pool(), "Ready")["status"] == "True"


@pytest.mark.usefixtures("operator")
async def test_children_come_and_go_with_the_audits(world: World) -> None:
    """Without them nothing is left of them, and the other children are as they were."""
    await world.create(pool_document())
    plain = await world.wait("children", world.children, lambda found: len(found) == 12)
    await world.change({"quality": {"judge": "scenes"}})
    audited = await world.wait("the auditor", world.children, lambda found: found.keys() >= CHILDREN)
    assert audited.keys() - plain.keys() == CHILDREN
    await world.until_condition("QualityKept", "Unknown", "AuditorNotReady")
    await world.change({"quality": None})
    after = await world.wait("no auditor", world.children, lambda found: not found.keys() & CHILDREN)
    assert after.keys() == plain.keys()
    pool = await world.until("no condition", lambda one: "QualityKept" not in kinds(one))
    assert "audits" not in pool["status"]


def kinds(pool: Document) -> set[str]:
    """Of conditions."""
    return {one["type"] for one in pool["status"]["conditions"]}


async def test_corrections_are_kept_and_planned_with(world: World, auditor: TellingAuditor) -> None:
    """In a ConfigMap of the pool's; a new operator finds them and writes nothing; they go with the audits."""
    settings = operator_settings(world.server, world.namespace)
    async with running_operator(settings):
        auditor.measured(40, 0.97, 0.965)
        await bring_up(world, auditor, recalibrate=True)
        await world.until_condition("QualityKept", "True")
        correct(auditor, await profile_digest(world))
        stored = await world.wait("corrections", lambda: world.child(KEPT), bool)
        corrections = parse_corrections(stored["data"]["corrections.json"])
        assert (corrections.revision, corrections.judge, corrections.reason) == (1, "scenes 1", "40 audits say so")
        assert [one["revision"] for one in json.loads(stored["data"]["history.json"])] == [1]
        plan = await world.until("its plan", lambda pool: pool["status"]["plan"]["reason"] == "Recalibrated")
        assert plan["status"]["audits"]["correctionsRevision"] == 1
        await world.wait("quiet", lambda: versions(world), Quiet())
    before, asked = await versions(world), auditor.asked
    async with running_operator(settings) as again:
        await world.wait("asked again", lambda: asyncio.sleep(0, auditor.asked), lambda now: now > asked + 5)
        assert writes_of(again) == 0
        assert await versions(world) == before
        await world.change({"quality": None})
        await world.wait("gone", lambda: world.child(KEPT), lambda one: one is None)


def correct(auditor: TellingAuditor, profile: str) -> None:
    """It says that a level loses more than its profile promises."""
    assert auditor.says is not None
    correction = auditor_pb2.Correction(level=SKIP, similarity_min=0.7, added_loss=0.02)
    auditor.says.corrections.MergeFrom(
        auditor_pb2.Corrections(revision=1, corrections=[correction], profile=profile, next_within_ms=1000)
    )
    auditor.says.correction_reason = "40 audits say so"


async def profile_digest(world: World) -> str:
    """Of the losses that the pool's own copy holds."""
    config = await world.child("ConfigMap/p-config")
    assert config is not None
    return parse_profile(config["data"]["profile.json"]).losses_digest


async def versions(world: World) -> dict[str, str]:
    """Resource versions of the pool and all its children."""
    found = {key: child["metadata"]["resourceVersion"] for key, child in (await world.children()).items()}
    return {**found, "pool": (await world.pool())["metadata"]["resourceVersion"]}


class Quiet:
    """True once several looks in a row have seen the same."""

    def __init__(self, looks: int = 10) -> None:
        self._looks = looks
        self._last: object = None
        self._same = 0

    def __call__(self, seen: object) -> bool:
        self._same = self._same + 1 if seen == self._last else 0
        self._last = seen
        return self._same >= self._looks


async def test_counts_that_grow_are_told_once_a_minute(auditor: TellingAuditor) -> None:
    """A status is written for each look, so twenty audits more within the minute bring none."""
    told: list[str] = []
    now_s = 1000.0
    poller = AuditPoller(told.append, OperatorMetrics(CollectorRegistry()), clock=lambda: now_s)
    poller.remember("ns/p", [pod(auditor)])
    for number in range(20):
        auditor.measured(40 + number, 0.97, 0.965)
        await poller.poll_all()
    assert told == ["ns/p"]
    assert known_audits(poller) == 40
    now_s += EVERY_S
    await poller.poll_all()
    await poller.close()
    assert told == ["ns/p"] * 2
    assert known_audits(poller) == 59


def known_audits(poller: AuditPoller) -> int:
    """Of the report that decisions are made from."""
    report = poller.heard("ns/p").report
    assert report is not None
    return report.quality.num_audits


async def test_silence_is_told_after_a_while(auditor: TellingAuditor) -> None:
    """An answer that is late or lost is no news; what was heard before stays known."""
    told: list[str] = []
    now_s = 1000.0
    poller = AuditPoller(told.append, OperatorMetrics(CollectorRegistry()), clock=lambda: now_s)
    poller.remember("ns/p", [pod(auditor)])
    auditor.measured(40, 0.97, 0.965)
    await poller.poll_all()
    auditor.says = None
    await poller.poll_all()
    assert (told, poller.heard("ns/p").silent) == (["ns/p"], False)
    now_s += SILENT_S + 1
    await poller.poll_all()
    assert (told, poller.heard("ns/p").silent, known_audits(poller)) == (["ns/p"] * 2, True, 40)
    auditor.measured(41, 0.97, 0.965)
    await poller.poll_all()
    assert (len(told), poller.heard("ns/p").silent) == (3, False)
    poller.remember("ns/p", [])
    now_s += SILENT_S + 1
    await poller.poll_all()
    await poller.close()
    assert not poller.heard("ns/p").silent, "there is nobody to be silent"


def pod(auditor: Any) -> Document:
    """Of an auditor, as far as polling reads it."""
    container = {"name": "auditor", "ports": [{"name": "control", "containerPort": auditor.port}]}
    metadata = {"name": "p-auditor-0", "uid": "u", "annotations": {"t2iserving.dev/config-hash": "basis"}}
    return {"metadata": metadata, "spec": {"containers": [container]}, "status": {"podIP": "127.0.0.1"}}
