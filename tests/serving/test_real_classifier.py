"""The example of a safety endpoint, with its real classifiers, in a process of its own before a real local pool."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import httpx
import pytest
import pytest_asyncio
from google.rpc import error_details_pb2

from t2i_protos.v1 import gateway_pb2
from t2i_testing_kit.played_classifier import add_safety
from t2i_testing_kit.programs import StartedProgram, free_ports
from t2i_testing_kit.serving import Client, WritePool, detail, image_of
from t2ictl.local_pool import LocalPool

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]
EXAMPLE = Path(__file__).parents[2] / "examples" / "safety"
START_LIMIT_S = 300.0
Request = gateway_pb2.GenerateRequest


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def classifier(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """Where the example listens."""
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "uvicorn", "--app-dir", str(EXAMPLE), "classifier:app", "--port", str(port)]
    program = StartedProgram("classifier", command, tmp_path_factory.mktemp("classifier") / "log")
    program.start()
    try:
        base = f"http://127.0.0.1:{port}"
        async with asyncio.timeout(START_LIMIT_S), httpx.AsyncClient() as http:
            while True:
                try:
                    await http.get(base)
                    break
                except httpx.TransportError:
                    await asyncio.sleep(0.2)
        yield base
    finally:
        program.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(write_pool: WritePool, classifier: str) -> AsyncIterator[Client]:
    """Of a pool that asks it about prompts and images."""
    options = write_pool(workers=1, slo_ms=60_000)
    add_safety(options.pool_file, f"{classifier}/prompt", image=False)
    text = options.pool_file.read_text().rstrip()
    assert text.endswith("}")
    options.pool_file.write_text(f'{text[:-1]}, image: {{url: "{classifier}/image"}}}}\n')
    async with LocalPool(options) as pool:
        one = Client(pool.address)
        yield one
        await one.channel.close()


async def test_harmless_prompts_and_images_are_served(client: Client) -> None:
    """The model has seen the image before the client does."""
    for output in ("OUTPUT_FORMAT_PNG", "OUTPUT_FORMAT_JPEG", "OUTPUT_FORMAT_WEBP"):
        events = await client.events(Request(prompt="a red circle", output_format=output), 120)  # type: ignore[arg-type]
        assert image_of(events).shape == (48, 48, 3)


@pytest.mark.parametrize("prompt", ["a shitty drawing of a circle", "what the f*ck, a circle"])
async def test_a_prompt_that_swears_is_refused(client: Client, prompt: str) -> None:
    """With the category that the classifier gives, spelled in full or not."""
    error = await client.refusal(Request(prompt=prompt), 120)
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert detail(error, error_details_pb2.ErrorInfo()).reason == "CONTENT_POLICY_VIOLATION"
    assert "profanity" in (error.details() or "")
