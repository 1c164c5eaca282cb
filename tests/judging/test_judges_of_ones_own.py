"""A judge that somebody else wrote: a real program and a real HTTP server, well behaved and not."""

import asyncio
import base64
import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from t2i_profiler.errors import JudgeFailed, JudgeUnusable
from t2i_profiler.judges import own
from t2i_profiler.judges.catalogue import open_judge
from t2i_profiler.judges.judge import JudgedImage, qualities

CARD = {"name": "mine", "digest": "v1", "lowest": 0, "highest": 200, "higherIsBetter": False}
PROGRAM = """
import json, sys
card = {card}
for line in sys.stdin:
    asked = json.loads(line)
    if "describe" in asked:
        print(json.dumps(card), flush=True)
    else:
        {answer}
"""
COUNTS = 'print(json.dumps({"scores": [len(one["prompt"]) for one in asked["images"]]}), flush=True)'


def program(folder: Path, answer: str = COUNTS, card: Any = CARD) -> str:
    """The `--judge` of a program that answers so."""
    path = folder / "judge.py"
    path.write_text(PROGRAM.replace("{card}", repr(card)).replace("{answer}", answer))
    return f"command://{sys.executable} {path}"


async def test_a_program_scores_what_it_is_given(tmp_path: Path, judged: list[JudgedImage]) -> None:
    """More images than one batch, in order; what it says of itself is what a profile records."""
    judge = await open_judge(program(tmp_path), tmp_path)
    try:
        many = judged * 5
        assert await judge.score(many) == [len(one.sample.prompt) for one in many]
        assert await qualities(judge, judged[:1]) == [pytest.approx(1 - 12 / 200)]
        assert (judge.card.record.kind, judge.card.record.digest) == ("mine", "v1")
    finally:
        await judge.close()


DEEP = 200_000
BAD: dict[str, tuple[str, str]] = {
    "not JSON": ('print("seven", flush=True)', "not JSON"),
    "too few": ('print(json.dumps({"scores": []}), flush=True)', "scores must be a list of as many"),
    "off its scale": ('print(json.dumps({"scores": [900] * 3}), flush=True)', "no number from 0 to 200"),
    "no number": ('print(json.dumps({"scores": [None] * 3}), flush=True)', "no number from 0 to 200"),
    "a number no float holds": (
        'print(json.dumps({"scores": [10 ** 400] * 3}), flush=True)',
        "no number from 0 to 200",
    ),
    "nested deeply": (f'print("[" * {DEEP}, flush=True)', "nested too deeply"),
    "ends": ("sys.exit(3)", "ended with code 3"),
    "goes on without its output": ("sys.stdout.flush(); import os; os.close(1)", "closed its standard input or output"),
    "a flood": (f'print("x" * {own.MAX_ANSWER_BYTES + 10}, flush=True)', "more than"),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_program_that_misbehaves_is_told_by_what_it_did(
    name: str, tmp_path: Path, judged: list[JudgedImage]
) -> None:
    answer, said = BAD[name]
    judge = await open_judge(program(tmp_path, answer), tmp_path)
    try:
        with pytest.raises(JudgeFailed, match=said):
            await judge.score(judged)
    finally:
        await judge.close()


async def test_a_program_that_hangs_is_ended(
    tmp_path: Path, judged: list[JudgedImage], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its answer has a deadline, and so has its end."""
    monkeypatch.setattr(own, "STOP_LIMIT_S", 0.1)
    judge = await open_judge(program(tmp_path, "import time; time.sleep(600)"), tmp_path)
    monkeypatch.setattr(own, "ANSWER_LIMIT_S", 0.1)
    with pytest.raises(JudgeFailed, match="did not answer within"):
        await judge.score(judged)
    await judge.close()


async def test_a_late_answer_is_no_answer_to_the_next_question(tmp_path: Path, judged: list[JudgedImage]) -> None:
    """Else every later image would have the score of the one before."""
    judge = await open_judge(program(tmp_path), tmp_path)
    try:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):  # short: it gives up as soon as the question is written
                await judge.score(judged[:1])
        assert await judge.score(judged[1:2]) == [len(judged[1].sample.prompt)]
    finally:
        await judge.close()


CARDS: dict[str, tuple[Any, str]] = {
    "no name": ({**CARD, "name": ""}, "must have name"),
    "no digest": ({key: one for key, one in CARD.items() if key != "digest"}, "must have digest"),
    "ends the wrong way": ({**CARD, "lowest": 300}, "lowest first"),
    "ends that are one": ({**CARD, "lowest": 2**53, "highest": 2**53 + 1}, "lowest first"),
    "an end no float holds": ({**CARD, "highest": 10**400}, "two numbers"),
    "an endless range": ({**CARD, "lowest": -1.7e308, "highest": 1.7e308}, "two numbers"),
    "no object": ([1], "one JSON object"),
}


@pytest.mark.parametrize("name", CARDS)
async def test_a_description_is_checked(name: str, tmp_path: Path) -> None:
    card, said = CARDS[name]
    with pytest.raises(JudgeUnusable, match=said):
        await open_judge(program(tmp_path, card=card), tmp_path)


async def test_a_program_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(JudgeUnusable, match="cannot be started"):
        await open_judge(f"command://{tmp_path}/none", tmp_path)


@contextmanager
def service(answer: Callable[[dict[str, Any]], tuple[int, bytes]]) -> Iterator[str]:
    """A judge's address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            status, body = answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Not to the test's output."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/judge"
    finally:
        server.shutdown()
        server.server_close()


async def test_a_service_scores_over_http(tmp_path: Path, judged: list[JudgedImage]) -> None:
    """Images travel whole, prompts in the body."""
    seen: list[bytes] = []

    def answer(asked: dict[str, Any]) -> tuple[int, bytes]:
        if "describe" in asked:
            return 200, json.dumps(CARD).encode()
        seen.extend(base64.b64decode(one["exact"]) for one in asked["images"])
        return 200, json.dumps({"scores": [len(one["prompt"]) for one in asked["images"]]}).encode()

    with service(answer) as address:
        judge = await open_judge(address, tmp_path)
        assert await judge.score(judged) == [len(one.sample.prompt) for one in judged]
        await judge.close()
    assert seen == [one.exact for one in judged]


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (500, b"", "status 500"),
        (302, b"", "status 302"),
        (200, b"x" * (own.MAX_ANSWER_BYTES + 1), "more than"),
        (200, b"[" * DEEP, "nested too deeply"),
    ],
    ids=["fails", "redirects", "a flood", "nested deeply"],
)
async def test_a_service_that_misbehaves_is_told(status: int, body: bytes, said: str, tmp_path: Path) -> None:
    with service(lambda _asked: (status, body)) as address, pytest.raises(JudgeUnusable, match=said):
        await open_judge(address, tmp_path)


async def test_a_service_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(JudgeUnusable, match="cannot be asked"):
        await open_judge("http://127.0.0.1:9/judge", tmp_path)
