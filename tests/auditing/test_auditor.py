"""The auditor over the wire: what it judges, what it refuses, what it tells gateways and the operator."""

import asyncio
import io
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import AsyncMock

import grpc
import numpy as np
import pytest
from PIL import Image
from prometheus_client import CollectorRegistry, generate_latest

from t2i_auditor import judging
from t2i_auditor.book import AuditBook
from t2i_auditor.errors import AuditorUnusable, NotJudged
from t2i_auditor.judging import MAX_PAIRS, PairJudge
from t2i_auditor.metrics import AuditorMetrics
from t2i_auditor.server import read_corrections, write_corrections
from t2i_auditor.service import AuditControlService, AuditorService
from t2i_gateway.audits import auditor_connection
from t2i_policy.audits import Audit, BandOf
from t2i_policy.corrections import NO_CORRECTIONS, Correction, Corrections
from t2i_policy.judge_record import JudgeRecord
from t2i_policy.level import Level
from t2i_policy.recalibration import LEAST_AUDITS
from t2i_profiler.errors import JudgeFailed
from t2i_profiler.judges.judge import JudgeCard, JudgedImage, Scale
from t2i_protos.v1 import auditor_pb2, auditor_pb2_grpc
from t2i_runtime.level_messages import level_message
from t2i_scenes import caption, render, sample_scene
from t2i_testing_kit.serving import STEPS, WITHIN_S, make_profile, violated_fields

PROFILE = make_profile((0.001,))
SHORT, SKIP = Level(0, 10), Level(10, STEPS)
RNG = np.random.default_rng(3)
SCENE, OTHER = sample_scene(RNG), sample_scene(RNG)
PROMPT = caption(SCENE, RNG)


def drawn(scene: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(render(scene, RNG)).save(out, "png")  # type: ignore[arg-type]
    return out.getvalue()


EXACT, APPROXIMATED = drawn(SCENE), drawn(OTHER)
PAIR = auditor_pb2.JudgeRequest(
    prompt=PROMPT,
    image=APPROXIMATED,
    exact=EXACT,
    level=level_message(SKIP),
    similarity=0.9,
    promised_loss=0.2,
    profile_loss=0.1,
)


def changed(**fields: object) -> auditor_pb2.JudgeRequest:
    request = auditor_pb2.JudgeRequest()
    request.CopyFrom(PAIR)
    for name, value in fields.items():
        setattr(request, name, value)
    return request


@dataclass
class Auditor:
    """One that is served on a port of this machine."""

    judge: PairJudge
    book: AuditBook
    registry: CollectorRegistry
    gateways: auditor_pb2_grpc.AuditorStub
    operator: auditor_pb2_grpc.AuditControlStub

    async def refusal(self, request: auditor_pb2.JudgeRequest) -> grpc.aio.AioRpcError:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.gateways.Judge(request, timeout=WITHIN_S)
        return caught.value


@pytest.fixture
async def auditor(tmp_path: Path) -> AsyncIterator[Auditor]:
    """Its judge is not opened yet."""
    registry = CollectorRegistry()
    metrics = AuditorMetrics(registry, STEPS)
    judge = PairJudge("scenes", tmp_path, "", profile=PROFILE, metrics=metrics)
    book = AuditBook(PROFILE, metrics, recalibrates=True)
    server = grpc.aio.server()
    auditor_pb2_grpc.add_AuditorServicer_to_server(AuditorService(judge, book, metrics), server)
    auditor_pb2_grpc.add_AuditControlServicer_to_server(AuditControlService(judge, book), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stubs = auditor_pb2_grpc.AuditorStub(channel), auditor_pb2_grpc.AuditControlStub(channel)
        yield Auditor(judge, book, registry, *stubs)
    await server.stop(None)


async def test_a_pair_is_scored_and_counts_in_its_band(auditor: Auditor) -> None:
    """The operator is told numbers, the gateway the qualities."""
    await auditor.judge.open()
    answer = await auditor.gateways.Judge(PAIR, timeout=WITHIN_S)
    assert answer.exact_quality == 1.0 > answer.quality
    told = await auditor.operator.GetAudits(auditor_pb2.GetAuditsRequest(), timeout=WITHIN_S)
    (band,) = told.bands
    assert (band.level, band.similarity_min, band.num_audits) == (level_message(SKIP), 0.8, 1)
    assert (band.promised_loss, band.measured_loss) == (0.2, pytest.approx(1 - answer.quality))
    assert (told.num_audits, told.total_audits, told.judge, told.trouble) == (1, 1, "scenes 1", "")
    assert (told.promised_quality, told.measured_quality) == (pytest.approx(0.8), pytest.approx(answer.quality))
    text = generate_latest(auditor.registry).decode()
    assert 't2i_audit_recent{band="0.8",level="10"} 1.0' in text
    assert 't2i_audit_pairs_total{outcome="OK"} 1.0' in text
    assert PROMPT not in text


def test_levels_are_of_the_same_audits_as_the_whole() -> None:
    """Also after a change of what is lost, where older audits no longer count."""
    book = AuditBook(PROFILE, AuditorMetrics(CollectorRegistry(), STEPS), recalibrates=False)
    spread = np.random.default_rng(5).normal(0, 0.02, 260)
    for number, noise in enumerate(spread):
        band = BandOf(SHORT, -1.0) if number % 2 else BandOf(SKIP, 0.8)
        lost = (0.1 if number < 200 else 0.5) + float(noise)
        book.take_in(Audit(band, quality=1 - lost, exact_quality=1.0, promised_loss=0.1, profile_loss=0.1))
    assert book.whole.num_audits < 100
    assert sum(band.num_audits for band in book.bands.values()) == book.whole.num_audits
    assert all(band.measured_loss > 0.4 for band in book.bands.values())


async def test_nothing_is_judged_before_the_judge_is_there(auditor: Auditor) -> None:
    """The pair is dropped, and the operator hears why."""
    assert (await auditor.refusal(PAIR)).code() is grpc.StatusCode.UNAVAILABLE
    told = await auditor.operator.GetAudits(auditor_pb2.GetAuditsRequest(), timeout=WITHIN_S)
    assert told.trouble == "the judge is being loaded"
    assert not auditor.judge.ready


@pytest.mark.parametrize(
    ("request_", "fields"),
    [
        (changed(image=b"", exact=b""), ["image", "exact"]),
        (changed(image=b"no image"), ["image"]),
        (changed(promised_loss=-0.1, profile_loss=float("nan")), ["promised_loss", "profile_loss"]),
        (changed(similarity=7.0), ["similarity"]),
        (changed(prompt="a red cat"), ["prompt"]),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, list) else "",
)
async def test_what_cannot_be_judged_is_named(
    auditor: Auditor, request_: auditor_pb2.JudgeRequest, fields: list[str]
) -> None:
    """And counts for nothing: the judge is well, and nothing was measured."""
    await auditor.judge.open()
    error = await auditor.refusal(request_)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert violated_fields(error) == fields
    assert (auditor.book.total, auditor.judge.trouble) == (0, "")


async def test_too_many_pairs_at_once_are_refused(auditor: Auditor) -> None:
    await auditor.judge.open()
    auditor.judge._busy = MAX_PAIRS
    assert (await auditor.refusal(PAIR)).code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_gateways_may_ask_before_they_draw(auditor: Auditor) -> None:
    """The scenes judge needs a caption with all facts of a scene, which people's prompts often are not."""
    for prompt, can in ((PROMPT, True), ("a red circle", False)):
        asked = auditor_pb2.CanJudgeRequest(prompt=prompt)
        assert (await auditor.gateways.CanJudge(asked, timeout=WITHIN_S)).can == can


async def test_gateways_hear_of_corrections_at_once(auditor: Auditor) -> None:
    """First what is in force, then what replaces it."""
    news = auditor.gateways.WatchCorrections(auditor_pb2.WatchCorrectionsRequest(), timeout=WITHIN_S)
    first = await news.read()
    assert (first.revision, len(first.corrections)) == (0, 0)
    assert first.next_within_ms > 0
    for _ in range(LEAST_AUDITS):
        auditor.book.take_in(Audit(BandOf(SHORT, -1.0), 0.4, 0.8, 0.05, 0.05))
    second = await news.read()
    while not second.revision:  # one that was promised came in between
        second = await news.read()
    assert second.profile == PROFILE.losses_digest
    assert level_message(SHORT) in [one.level for one in second.corrections]
    told = await auditor.operator.GetAudits(auditor_pb2.GetAuditsRequest(), timeout=WITHIN_S)
    assert told.corrections.revision == second.revision
    assert "level 0/10" in told.correction_reason


async def test_a_judge_that_fails_is_asked_again(tmp_path: Path) -> None:
    """A service of the owner's that comes back is noticed by the next pair. Few failures in a row are no news."""
    program = tmp_path / "judge.py"
    program.write_text(
        "import json, sys\n"
        "print(json.dumps({'name': 'mine', 'digest': '1', 'lowest': 0, 'highest': 1}), flush=True)\n"
        "sys.stdin.readline()\n"
        "for number, line in enumerate(sys.stdin):\n"
        "    count = len(json.loads(line)['images'])\n"
        "    print(json.dumps({'scores': [0.5] * count if number >= 3 else []}), flush=True)\n"
    )
    metrics = AuditorMetrics(CollectorRegistry(), STEPS)
    judge = PairJudge(f"command://{sys.executable} {program}", tmp_path, "", profile=PROFILE, metrics=metrics)
    await judge.open()
    for told in (False, False, True):
        with pytest.raises(NotJudged, match="the judge gave no score"):
            await judge.score(PROMPT, APPROXIMATED, EXACT)
        assert bool(judge.trouble) == told
    assert judge.trouble.endswith("last: --judge mine: asked about 2 images, scores must be a list of as many")
    assert judge.ready
    assert await judge.score(PROMPT, APPROXIMATED, EXACT) == (0.5, 0.5)
    assert judge.trouble == ""
    await judge.close()


class FailingJudge:
    """Its next answer is this."""

    card = JudgeCard("mine", "command://mine", "1", Scale())
    answer: Callable[[], Awaitable[list[float]]]

    async def score(self, images: Sequence[JudgedImage]) -> list[float]:
        del images
        return await self.answer()

    async def close(self) -> None: ...


@pytest.fixture
def failing(tmp_path: Path) -> tuple[PairJudge, FailingJudge]:
    judge = PairJudge(
        "command://mine", tmp_path, "", profile=PROFILE, metrics=AuditorMetrics(CollectorRegistry(), STEPS)
    )
    judge._judge, judge.trouble = (inner := FailingJudge()), ""
    return judge, inner


async def test_why_a_judge_fails_is_logged_when_it_changes(
    failing: tuple[PairJudge, FailingJudge], caplog: pytest.LogCaptureFixture
) -> None:
    """An owner who reads the log knows what to mend; no flood, no prompt."""
    judge, inner = failing
    for why in ("status 500", "status 500", "no number", "no number"):
        inner.answer = AsyncMock(side_effect=JudgeFailed(why))
        with pytest.raises(NotJudged, match=why):
            await judge.score(PROMPT, APPROXIMATED, EXACT)
    warnings = [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]
    assert warnings == [
        "the judge gave no score for a pair: status 500",
        "the judge gave no score for a pair: no number",
        "judge: the judge gave no score for 3 or more pairs in a row, last: no number",
    ]
    assert judge.trouble == "the judge gave no score for 3 or more pairs in a row, last: no number"
    assert PROMPT not in caplog.text


async def test_a_judge_that_is_too_slow_is_told(
    failing: tuple[PairJudge, FailingJudge], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the auditor, which gives up before gateways do: a call that they end tells nobody anything."""
    assert auditor_connection.JUDGE_LIMIT_S - judging.JUDGE_LIMIT_S >= 5
    judge, inner = failing
    inner.answer = asyncio.Event().wait  # type: ignore[assignment]
    monkeypatch.setattr(judging, "JUDGE_LIMIT_S", 0.0)
    for _ in range(3):
        with pytest.raises(NotJudged, match="no answer within 0 s"):
            await judge.score(PROMPT, APPROXIMATED, EXACT)
    assert judge.trouble.endswith("last: no answer within 0 s")


async def test_another_judge_than_the_profiles_is_refused(tmp_path: Path) -> None:
    """Losses of two judges do not compare."""
    metrics = AuditorMetrics(CollectorRegistry(), STEPS)
    other = replace(PROFILE, judge=JudgeRecord("pickscore", "hf://somewhere", "digest"))
    judge = PairJudge("scenes", tmp_path, "", profile=other, metrics=metrics)
    with pytest.raises(AuditorUnusable, match=r"spec.quality.judge is scenes \(1\), .* of pickscore \(digest\)"):
        await judge.open()


# Corrections between two lives.


def test_corrections_outlive_the_process(tmp_path: Path) -> None:
    """Of this profile; those of one that was measured anew since are left out."""
    path = tmp_path / "corrections.json"
    assert read_corrections(path, PROFILE) == NO_CORRECTIONS
    found = Corrections(4, (Correction(SHORT, -1.0, 0.1),), PROFILE.losses_digest, "scenes 1", "because")
    write_corrections(path, found)
    assert read_corrections(path, PROFILE) == found
    assert read_corrections(path, replace(PROFILE, losses=PROFILE.losses[:1])) == NO_CORRECTIONS
    path.write_text(json.dumps({"schema": "t2iserving.dev/corrections/v1", "revision": "x"}))
    with pytest.raises(AuditorUnusable, match=r"--corrections .*: corrections are not usable"):
        read_corrections(path, PROFILE)


@pytest.mark.parametrize(
    "data",
    [b"\xff\xfe{}", b"[" * 200_000, b'{"schema": "t2iserving.dev/corrections/v2"}', b"null", b"{"],
    ids=["no UTF-8", "nested deeply", "newer", "nothing", "cut off"],
)
def test_a_damaged_file_of_corrections_says_what_to_do(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "corrections.json"
    path.write_bytes(data)
    with pytest.raises(AuditorUnusable, match=r"delete the file \(in a cluster the ConfigMap POOL-audits\) to begin"):
        read_corrections(path, PROFILE)


async def test_corrections_by_another_judge_go(tmp_path: Path) -> None:
    before = Corrections(4, (Correction(SHORT, -1.0, 0.1),), PROFILE.losses_digest, "pickscore 7")
    registry = CollectorRegistry()
    metrics = AuditorMetrics(registry, STEPS)
    book = AuditBook(PROFILE, metrics, recalibrates=True, corrections=before)
    assert b"t2i_audit_added_loss{" in generate_latest(registry)
    waiting = asyncio.ensure_future(book.changed(WITHIN_S))
    await asyncio.sleep(0)
    book.judged_by("scenes 1")
    await waiting
    assert (book.corrections.revision, book.corrections.corrections) == (5, ())
    assert book.corrections.reason == "the judge is scenes 1 now, and was pickscore 7"
    text = generate_latest(registry)
    assert b"t2i_audit_added_loss{" not in text, "no correction is in force any more"
    assert b"t2i_audit_corrections_revision 5.0" in text
