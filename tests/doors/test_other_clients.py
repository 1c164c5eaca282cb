"""LiteLLM, as a library and as a proxy, and LangChain's image tool, each the real package, before a real local pool.

What they make of each field is the table of docs/openai.md.
"""

import asyncio
import base64
import io
import json
import os
import secrets
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import pytest_asyncio
import yaml
from PIL import Image

from http_clients import opened
from t2i_testing_kit.foreign_clients.environment import ensure_environment
from t2i_testing_kit.programs import StartedProgram, free_ports
from t2ictl.local_pool import LocalPool

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(1800)]
CALLS = Path(__file__).parents[1] / "support" / "calls_of_others.py"
#: What tells home, or looks something up in a network, is off.
QUIET = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False", "LANGSMITH_TRACING": "false"}
START_LIMIT_S = 600.0
PLAIN = "48x48"


@pytest.fixture(scope="module")
def programs() -> Path:
    """Where the clients are; made once a machine."""
    return ensure_environment(lambda text: sys.stderr.write(f"{text}\n"))


async def outcomes(programs: Path, client: str, pool: LocalPool, calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What came of each call."""
    base = f"http://{pool.http_address}/v1"
    process = await asyncio.create_subprocess_exec(
        programs / "python", CALLS, client, base, stdin=-1, stdout=-1, stderr=-1, env={**os.environ, **QUIET}
    )
    said, complained = await process.communicate(json.dumps(calls).encode())
    assert process.returncode == 0, complained.decode()
    found: list[dict[str, Any]] = json.loads(said)
    return found


def png() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (48, 48), "red").save(out, "PNG")
    return out.getvalue()


#: Fields, and what a client is to get: sizes of its images, or the status of its error. None: the client does not ask.
Asked = tuple[dict[str, Any], list[str] | int | None]
WEBP = repr(b"RIFF")
SAME: dict[str, Asked] = {
    "prompt": ({}, [PLAIN]),
    "n": ({"n": 2}, [PLAIN, PLAIN]),
    "size": ({"size": "72x48"}, ["72x48"]),
    "another size": ({"size": "64x64"}, 400),
    "quality": ({"quality": "high"}, [PLAIN]),
    "output_format": ({"output_format": "webp"}, [WEBP]),
    "background": ({"background": "opaque"}, [PLAIN]),
    "user": ({"user": "u"}, [PLAIN]),
    "fields of ours": ({"extra_body": {"seed": 7, "exact": True}}, [PLAIN]),
    "an unknown field": ({"extra_body": {"colour": "red"}}, 400),
}
LIBRARY: dict[str, Asked] = {
    **SAME,
    "response_format": ({"response_format": "b64_json"}, 400),  # it refuses that itself, unless told to drop it
    "stream": ({"stream": True, "partial_images": 1}, 500),  # it cannot read what comes
}
PROXY: dict[str, Asked] = {**SAME, "response_format": ({"response_format": "b64_json"}, [PLAIN])}


async def test_litellm_as_a_library(programs: Path, pool: LocalPool) -> None:
    """Each field as the table says."""
    calls = [{"prompt": "a red circle", **fields} for fields, _ in LIBRARY.values()]
    came = await outcomes(programs, "litellm", pool, calls)
    found = {name: one.get("sizes", one.get("status")) for name, one in zip(LIBRARY, came, strict=True)}
    assert found == {name: wanted for name, (_, wanted) in LIBRARY.items()}, came


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def proxy(programs: Path, pool: LocalPool, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Any]:
    """A client of LiteLLM's proxy, which serves the pool as `drawing`."""
    folder, key, (port,) = tmp_path_factory.mktemp("proxy"), f"sk-{secrets.token_hex(24)}", free_ports(1)
    behind = {"model": "openai/test", "api_base": f"http://{pool.http_address}/v1", "api_key": "none"}
    config = {"model_list": [{"model_name": "drawing", "litellm_params": behind}]}
    (folder / "config.yaml").write_text(yaml.safe_dump({**config, "litellm_settings": {"drop_params": True}}))
    own = [f"{name}={value}" for name, value in {**QUIET, "LITELLM_MASTER_KEY": key}.items()]
    command = ["/usr/bin/env", *own, str(programs / "litellm"), "--config", str(folder / "config.yaml")]
    program = StartedProgram("litellm", [*command, "--host", "127.0.0.1", "--port", str(port)], folder / "log")
    program.start()
    try:
        await answers(f"http://127.0.0.1:{port}/health/liveliness")
        base = f"http://127.0.0.1:{port}/v1"
        async with openai.AsyncOpenAI(base_url=base, api_key=key, max_retries=0, timeout=120) as client:
            yield client
    finally:
        program.stop()


async def answers(url: str) -> None:
    """Its imports take a while."""
    async with asyncio.timeout(START_LIMIT_S), httpx.AsyncClient() as http:
        while True:
            try:
                if (await http.get(url)).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.5)


@pytest.mark.parametrize("field", PROXY)
async def test_litellm_as_a_proxy(proxy: openai.AsyncOpenAI, field: str) -> None:
    """The official client before it, which gets images and errors as if it asked the pool."""
    fields, wanted = PROXY[field]
    came: list[str] | int
    try:
        answer = await proxy.images.generate(model="drawing", prompt="a red circle", **fields)
        images = [opened(one.b64_json) for one in answer.data or ()]
        came = [WEBP if image.format == "WEBP" else f"{image.width}x{image.height}" for image in images]
    except openai.APIStatusError as error:
        came = error.status_code
    assert came == wanted


async def test_litellm_proxy_does_not_pass_streams_on(proxy: openai.AsyncOpenAI) -> None:
    """Its own limit; when this fails, tell the table that it does now."""
    with pytest.raises(openai.APIStatusError):
        async for _ in await proxy.images.generate(model="drawing", prompt="a", stream=True, partial_images=1):
            pass


async def test_langchain(programs: Path, pool: LocalPool) -> None:
    """Its tool joins addresses, so it draws and then fails on base64; the client inside it works."""
    calls: list[dict[str, Any]] = [
        {"prompt": "a red circle", "client": True, "size": "72x48", "extra_body": {"seed": 7}},
        {"prompt": "a red circle", "size": PLAIN},
        {"prompt": "a red circle"},
    ]
    client, tool, default_size = await outcomes(programs, "langchain", pool, calls)
    assert client == {"sizes": ["72x48"]}
    assert (tool["error"], tool["status"]) == ("TypeError", None)
    assert default_size["status"] == 400, "its own size, 1024x1024, is none of this pool's"


async def test_litellm_edits(programs: Path, pool: LocalPool) -> None:
    """The form reaches the pool, and an image comes back."""
    call = {"prompt": "a red circle", "image": base64.b64encode(png()).decode()}
    assert await outcomes(programs, "litellm", pool, [call]) == [{"sizes": [PLAIN]}]
