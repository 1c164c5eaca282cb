"""A judge of one's own: a program that is started once, or a service that is asked by HTTP. docs/judges.md has both.

Both are asked with JSON and answer with JSON. A description comes first, then scores for each batch:

    {"describe": true}
    {"name": "mine", "digest": "v3", "lowest": 0, "highest": 10, "higherIsBetter": true, "comparesWithExact": false}

    {"images": [{"prompt": "...", "image": "<base64>", "exact": "<base64>"}]}
    {"scores": [7.25]}

A program reads one line and writes one line, a service is POSTed to. Prompts travel in the body, never in arguments or
addresses. An answer is at most a MiB and comes within two minutes.
"""

import asyncio
import base64
import json
import math
import shlex
from collections.abc import Sequence
from typing import Any, Protocol, TypeGuard

import aiohttp

from t2i_profiler.errors import JudgeFailed, JudgeUnusable
from t2i_profiler.judges.judge import JudgeCard, JudgedImage, Scale

ANSWER_LIMIT_S = 120.0
STOP_LIMIT_S = 5.0
MAX_ANSWER_BYTES = 1 << 20
BATCH = 8


class JudgeLine(Protocol):
    """A way to a judge: JSON out, JSON back."""

    async def ask(self, body: bytes) -> bytes:
        """Raises:
        JudgeFailed: no answer, or too large a one.
        """

    async def close(self) -> None: ...


class OwnJudge:
    """A judge that somebody else wrote."""

    def __init__(self, card: JudgeCard, line: JudgeLine) -> None:
        self.card = card
        self._line = line
        self._turn = asyncio.Lock()

    async def score(self, images: Sequence[JudgedImage]) -> list[float]:
        """As `Judge`."""
        scores: list[float] = []
        for start in range(0, len(images), BATCH):
            part = images[start : start + BATCH]
            async with self._turn:
                answer = await _ask(self._line, {"images": [_spell(one) for one in part]}, self.card.kind)
            scores += _read_scores(answer, len(part), self.card)
        return scores

    async def close(self) -> None:
        """End the program, or let go of the connection."""
        await self._line.close()


async def open_own_judge(source: str) -> OwnJudge:
    """Of a `command://` or `http(s)://` address.

    Raises:
        JudgeUnusable: it does not start, does not answer, or does not describe itself.
    """
    scheme, _, rest = source.partition("://")
    line: JudgeLine = await _start_program(rest) if scheme == "command" else HttpLine(source)
    try:
        return OwnJudge(_read_card(await _ask(line, {"describe": True}, scheme), source), line)
    except JudgeFailed as error:
        await line.close()
        raise JudgeUnusable(str(error)) from error
    except BaseException:
        await line.close()
        raise


class ProgramLine:
    """Lines of JSON to a running program and back. What it says on stderr goes to ours.

    An answer that comes after somebody gave up on it is read and dropped: it is no answer to the next question.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._late_answers = 0

    async def ask(self, body: bytes) -> bytes:
        """As `JudgeLine`."""
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise JudgeFailed("the judge's program has no pipes")
        try:
            async with asyncio.timeout(ANSWER_LIMIT_S):
                while self._late_answers:
                    await self._read_answer(stdout)
                stdin.write(body + b"\n")
                self._late_answers += 1
                await stdin.drain()
                answer = await self._read_answer(stdout)
        except TimeoutError as error:
            raise JudgeFailed(f"the judge's program did not answer within {ANSWER_LIMIT_S:.0f} s") from error
        except ValueError as error:
            raise JudgeFailed(f"the judge's program wrote a line of more than {MAX_ANSWER_BYTES} bytes") from error
        except (BrokenPipeError, ConnectionResetError) as error:
            raise JudgeFailed(await self._why_silent()) from error
        if not answer:
            raise JudgeFailed(await self._why_silent())
        return answer

    async def _read_answer(self, stdout: asyncio.StreamReader) -> bytes:
        """The next line. One that is too long has come as well; one that is given up on is still to come."""
        try:
            answer = await stdout.readline()
        except ValueError:
            self._late_answers -= 1
            raise
        self._late_answers -= 1
        return answer

    async def _why_silent(self) -> str:
        """Most that close their pipes end. One that goes on is not waited for."""
        try:
            async with asyncio.timeout(STOP_LIMIT_S):
                return f"the judge's program ended with code {await self._process.wait()}"
        except TimeoutError:
            return "the judge's program closed its standard input or output: it must answer until its input ends"

    async def close(self) -> None:
        """Its standard input ends, and so should it."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            async with asyncio.timeout(STOP_LIMIT_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


async def _start_program(command: str) -> ProgramLine:
    try:
        words = shlex.split(command)
        process = await asyncio.create_subprocess_exec(
            *words, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=MAX_ANSWER_BYTES
        )
    except (OSError, ValueError, TypeError) as error:
        raise JudgeUnusable(f"--judge command://{command}: cannot be started: {error}") from error
    return ProgramLine(process)


class HttpLine:
    """A service that is POSTed to."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._session: aiohttp.ClientSession | None = None

    async def ask(self, body: bytes) -> bytes:
        """As `JudgeLine`."""
        if self._session is None:
            limit = aiohttp.ClientTimeout(total=ANSWER_LIMIT_S)
            self._session = aiohttp.ClientSession(timeout=limit, trust_env=True)
        try:
            headers = {"Content-Type": "application/json"}
            async with self._session.post(self._url, data=body, headers=headers, allow_redirects=False) as answer:
                if answer.status != 200:
                    raise JudgeFailed(f"--judge: the service answered with status {answer.status}, not 200")
                return await _read_bounded(answer.content)
        except TimeoutError as error:
            raise JudgeFailed(f"--judge: the service did not answer within {ANSWER_LIMIT_S:.0f} s") from error
        except (aiohttp.ClientResponseError, aiohttp.ClientPayloadError) as error:  # its text may repeat the answer
            raise JudgeFailed(f"--judge: the service's answer is no valid HTTP ({type(error).__name__})") from error
        except (aiohttp.ClientError, ValueError) as error:
            raise JudgeFailed(f"--judge: the service cannot be asked: {error}") from error

    async def close(self) -> None:
        """Let go of the connection."""
        if self._session is not None:
            await self._session.close()


async def _read_bounded(content: aiohttp.StreamReader) -> bytes:
    whole = bytearray()
    async for chunk in content.iter_chunked(1 << 16):
        whole += chunk
        if len(whole) > MAX_ANSWER_BYTES:
            raise JudgeFailed(f"--judge: the service's answer has more than {MAX_ANSWER_BYTES} bytes")
    return bytes(whole)


async def _ask(line: JudgeLine, question: dict[str, Any], kind: str) -> dict[str, Any]:
    answer = await line.ask(json.dumps(question).encode())
    try:
        found = json.loads(answer)
    except ValueError as error:
        raise JudgeFailed(f"--judge {kind}: the answer is not JSON") from error
    except RecursionError as error:
        raise JudgeFailed(f"--judge {kind}: the answer is nested too deeply") from error
    if not isinstance(found, dict):
        raise JudgeFailed(f"--judge {kind}: the answer must be one JSON object")
    return found


def _spell(one: JudgedImage) -> dict[str, str]:
    image, exact = (base64.b64encode(data).decode() for data in (one.image, one.exact))
    return {"prompt": one.sample.prompt, "image": image, "exact": exact}


def _read_card(found: dict[str, Any], source: str) -> JudgeCard:
    """Raises:
    JudgeFailed: names the field.
    """
    for field in ("name", "digest"):
        if not isinstance(found.get(field), str) or not 0 < len(found[field]) <= 128:
            raise JudgeFailed(f"--judge {source}: its description must have {field}, a text of 1 to 128 characters")
    lowest, highest = found.get("lowest"), found.get("highest")
    if not _is_number(lowest) or not _is_number(highest) or not 0 < float(highest) - float(lowest) < math.inf:
        raise JudgeFailed(f"--judge {source}: its description must have lowest and highest, two numbers, lowest first")
    scale = Scale(float(lowest), float(highest), found.get("higherIsBetter") is not False)
    return JudgeCard(found["name"], source, found["digest"], scale, found.get("comparesWithExact") is True)


def _read_scores(answer: dict[str, Any], count: int, card: JudgeCard) -> list[float]:
    scores = answer.get("scores")
    if not isinstance(scores, list) or len(scores) != count:
        raise JudgeFailed(f"--judge {card.kind}: asked about {count} images, scores must be a list of as many")
    for score in scores:
        if not _is_number(score) or not card.scale.lowest <= score <= card.scale.highest:
            ends = f"{card.scale.lowest:g} to {card.scale.highest:g}"
            raise JudgeFailed(f"--judge {card.kind}: a score is no number from {ends}, as it described itself")
    return [float(score) for score in scores]


def _is_number(value: object) -> TypeGuard[float]:
    """Whether it is one that a float can hold."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer of hundreds of digits
        return False
