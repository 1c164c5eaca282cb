"""Clients of a gateway's HTTP door."""

import base64
import io

import httpx
import openai
from PIL import Image

from t2i_testing_kit.serving import WITHIN_S
from t2ictl.local_pool import LocalPool
from t2ictl.processes import ServerProcess


def client_of(pool: LocalPool | ServerProcess) -> openai.AsyncOpenAI:
    """The official client of a pool or of one gateway, which tries nothing twice."""
    base = f"http://{pool.http_address}/v1"
    return openai.AsyncOpenAI(base_url=base, api_key="none", max_retries=0, timeout=WITHIN_S)


def http_of(pool: LocalPool | ServerProcess) -> httpx.AsyncClient:
    """A client of any path. Its own default of 5 s is less than a busy machine may take."""
    return httpx.AsyncClient(base_url=f"http://{pool.http_address}", timeout=WITHIN_S)


def opened(data: str | None) -> Image.Image:
    """The picture in a base64 text."""
    image = Image.open(io.BytesIO(base64.b64decode(data or "", validate=True)))
    image.load()
    return image
