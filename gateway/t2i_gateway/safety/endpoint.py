"""One safety endpoint: a question by HTTP POST, and its answer.

It may be slow, broken or hostile: a question has a deadline, questions at one time are bounded, and so are the bytes of
an answer. Redirects are not followed, and proxies of the environment are not used: a prompt goes where the pool says.
"""

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import aiohttp

from t2i_api.safety import SafetyCheckPart
from t2i_gateway.json_names import NameRepeated, load_json
from t2i_gateway.safety.secret import EndpointSecret
from t2i_runtime.tracing import trace_headers

MAX_ANSWER_BYTES = 64 << 10
MAX_CATEGORY_CHARACTERS = 64
MAX_REASON_CHARACTERS = 256
CHUNK_BYTES = 16 << 10


class NoAnswer(Exception):
    """The endpoint gave no usable answer; the message says why and holds nothing of what was asked or answered."""


@dataclass(frozen=True, slots=True)
class SafetyVerdict:
    """What the endpoint says. `category` and `reason` are shown to the client."""

    allowed: bool
    category: str = ""
    reason: str = ""


class SafetyEndpoint:
    """Asks one endpoint. Used from one event loop; close it."""

    def __init__(self, part: SafetyCheckPart, secret: Callable[[], EndpointSecret]) -> None:
        self._part = part
        self._secret = secret
        self._turns = asyncio.Semaphore(part.max_concurrent)
        self._session: aiohttp.ClientSession | None = None

    async def ask(self, question: bytes, limit_s: float) -> SafetyVerdict:
        """Raises:
        NoAnswer: none came within the limit, or none that can be used.
        """
        try:
            async with asyncio.timeout(limit_s), self._turns:
                return await self._post(question)
        except TimeoutError as error:
            raise NoAnswer("it did not answer in time") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise NoAnswer(f"it could not be asked: {type(error).__name__}") from error

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _post(self, question: bytes) -> SafetyVerdict:
        secret, headers = self._secret(), {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        headers.update(trace_headers())
        if secret.token:
            headers["Authorization"] = f"Bearer {secret.token}"
        async with self._open().post(
            self._part.url, data=question, headers=headers, ssl=secret.context, allow_redirects=False
        ) as response:
            if response.status != 200:
                raise NoAnswer(f"it answered with HTTP {response.status}")
            answer = b""
            async for chunk in response.content.iter_chunked(CHUNK_BYTES):
                answer += chunk
                if len(answer) > MAX_ANSWER_BYTES:
                    raise NoAnswer(f"its answer is larger than {MAX_ANSWER_BYTES >> 10} KiB")
        return parse_answer(answer)

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=self._part.max_concurrent)
            self._session = aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(total=None),  # `ask` has one around everything
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
            )
        return self._session


def parse_answer(data: bytes) -> SafetyVerdict:
    """`{"allowed": bool, "category": text, "reason": text}`; the texts may be left out, other keys say nothing.

    Raises:
        NoAnswer: anything else.
    """
    try:
        answer = load_json(data)
    except NameRepeated as error:
        raise NoAnswer("its answer has a name twice") from error
    except (ValueError, RecursionError) as error:
        raise NoAnswer("its answer is not JSON") from error
    if not isinstance(answer, dict) or not isinstance(answer.get("allowed"), bool):
        raise NoAnswer("its answer has no `allowed` that is true or false")
    return SafetyVerdict(
        answer["allowed"],
        _shown(answer.get("category"), MAX_CATEGORY_CHARACTERS),
        _shown(answer.get("reason"), MAX_REASON_CHARACTERS),
    )


def tenant_hash(pool: str, tenant: str) -> str:
    """Tells tenants of a pool apart without their names."""
    return hashlib.sha256(f"{pool}\x1f{tenant}".encode()).hexdigest()[:32]


def _shown(text: object, most: int) -> str:
    return "".join(one for one in text if one.isprintable())[:most] if isinstance(text, str) else ""
