"""The playground's routes: the page and its files, the picture of the pool, and the load that the page asks for.

The page itself needs no proof of a tenant, so that it can ask for one. All that tells or does something does.
"""

import asyncio
import hashlib
from dataclasses import dataclass
from importlib.resources import files
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from t2i_api.pool import Pool
from t2i_gateway.director import Director
from t2i_gateway.doors.errors import HttpRefused
from t2i_gateway.doors.fields import parse_json
from t2i_gateway.doors.forms import JSON_TYPE
from t2i_gateway.doors.reading import check_type, read_body
from t2i_gateway.identity import Identities
from t2i_gateway.parts import Parts
from t2i_gateway.playground.picture import load_picture, pool_picture, worker_pictures
from t2i_gateway.playground.synthetic_load import RENEW_WITHIN_S, TENANT, TENANT_WEIGHT, SyntheticLoad
from t2i_gateway.playground.watched_intake import WatchedIntake
from t2i_runtime.errors import CallerUnknown

PAGE = "index.html"
MAX_LOAD_RPS = 1000
MAX_LOAD_PROMPTS = 200
MAX_LOAD_PROMPT_CHARACTERS = 512
MAX_BODY_BYTES = 256 << 10
PICTURE_AGE_S = 0.25  # for which all viewers get the same
_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_POLICY = "default-src 'self'; img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
PAGE_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


def _drawable(prompt: str) -> str:
    if not prompt.strip() or "\0" in prompt:
        raise ValueError("every prompt must say something, without NUL characters")
    return prompt


class LoadBody(BaseModel):
    """What the page asks for. It must ask again before RENEW_WITHIN_S are over."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    rps: Annotated[float, Field(ge=0, le=MAX_LOAD_RPS)]
    """Requests a second; 0 = none any more."""
    prompts: Annotated[
        list[Annotated[str, Field(max_length=MAX_LOAD_PROMPT_CHARACTERS), AfterValidator(_drawable)]],
        Field(max_length=MAX_LOAD_PROMPTS),
    ]
    """What they ask for, each at random."""


@dataclass(frozen=True, slots=True)
class StaticFile:
    """One file of the page, as it is sent."""

    data: bytes
    media_type: str

    @property
    def tag(self) -> str:
        return f'"{hashlib.sha256(self.data).hexdigest()[:32]}"'

    def answer(self, request: Request) -> Response:
        headers = {**PAGE_HEADERS, "etag": self.tag}
        if request.headers.get("if-none-match") == self.tag:
            return Response(status_code=304, headers=headers)
        return Response(self.data, headers=headers, media_type=self.media_type)


def static_files() -> dict[str, StaticFile]:
    """By name, all that the page consists of."""
    folder = files("t2i_gateway.playground") / "static"
    return {one.name: StaticFile(one.read_bytes(), _TYPES[one.name.rpartition(".")[2]]) for one in folder.iterdir()}


class Playground:
    """What the routes answer with. Used from one event loop.

    Attributes:
        intake: To be used by every door, as it notes what becomes of requests.
    """

    def __init__(self, pool: Pool, parts: Parts, director: Director) -> None:
        self._pool = pool
        self._parts = parts
        self.intake = WatchedIntake(director, pool, parts.metrics)
        self._load = SyntheticLoad(self.intake, parts.metrics, pool.spec.slo.latency_s)
        parts.dispatchers.weigh(TENANT, TENANT_WEIGHT)
        self._clock = asyncio.get_running_loop().time
        self._drawn_s = float("-inf")
        self._picture: dict[str, Any] = {}

    async def run(self) -> None:
        """Send the load that is asked for, until cancelled."""
        await self._load.run()

    def count_unknown(self, error: CallerUnknown) -> None:
        self._parts.metrics.unauthenticated.labels(error.reason).inc()

    def picture(self) -> dict[str, Any]:
        """The pool as it is, or was a moment ago."""
        now_s = self._clock()
        if now_s - self._drawn_s >= PICTURE_AGE_S:
            self._picture, self._drawn_s = self._draw(now_s), now_s
        return self._picture

    def _draw(self, now_s: float) -> dict[str, Any]:
        parts, levels = self._parts, self._parts.rules.ladder.levels
        model = self._pool.spec.model
        recent = self.intake.recent.summary(now_s, levels)
        return {
            **pool_picture(self._pool, levels, parts.dispatchers.view(), recent),
            "model": parts.names.own,
            "sizes": [str(size) for size in model.measured_sizes if model.serves(size.width, size.height)],
            "workers": worker_pictures(parts.workers.connections),
            "load": load_picture(self._load),
        }

    def ask_load(self, body: LoadBody) -> dict[str, Any]:
        """Raises:
        HttpRefused: it asks for requests without prompts.
        """
        if body.rps > 0 and not body.prompts:
            raise HttpRefused(400, "Invalid value for 'prompts': load needs at least one prompt.", param="prompts")
        self._load.ask(body.rps, body.prompts)
        return {"rps": body.rps, "renew_within_s": RENEW_WITHIN_S}


def playground_routes(playground: Playground, identities: Identities) -> list[Route]:
    """For the HTTP door."""
    static = static_files()

    def known(request: Request) -> None:
        try:
            identities.tenant_of(request.headers.items(), request.state.auth_context)
        except CallerUnknown as error:
            playground.count_unknown(error)
            raise

    async def page(request: Request) -> Response:
        return static[PAGE].answer(request)

    async def file(request: Request) -> Response:
        found = static.get(request.path_params["file"])
        if found is None:
            raise HttpRefused(404, "the playground has no such file", code="unknown_url")
        return found.answer(request)

    async def pool(request: Request) -> Response:
        known(request)
        return JSONResponse(playground.picture(), headers={"cache-control": "no-store"})

    async def load(request: Request) -> Response:
        known(request)
        check_type(request, JSON_TYPE)
        data = await read_body(request, MAX_BODY_BYTES)
        return JSONResponse(playground.ask_load(parse_json(LoadBody, data)), 202)

    return [
        Route("/", page),
        Route("/v1/pool", pool),
        Route("/playground/load", load, methods=["POST"]),
        Route("/playground/{file}", file),
    ]
