"""A client that knows no file of ours draws an image: grpcurl finds everything by reflection v1."""

import asyncio
import base64
import io
import json

import pytest
from PIL import Image

from t2i_testing_kit.grpcurl import ensure_grpcurl
from t2ictl.local_pool import LocalPool

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(1800)]
SERVICE = "t2iserving.v1.TextToImage"


async def grpcurl(*arguments: str) -> str:
    """What it prints."""
    program = await asyncio.to_thread(ensure_grpcurl)  # built once
    process = await asyncio.create_subprocess_exec(
        program, "-plaintext", "-max-time", "60", *arguments, stdout=asyncio.subprocess.PIPE, stderr=-1
    )
    said, complained = await process.communicate()
    assert process.returncode == 0, complained.decode()
    return said.decode()


async def test_services_are_listed_and_described(pool: LocalPool) -> None:
    """Reflection itself too, in both of its versions."""
    listed = (await grpcurl(pool.address, "list")).split()
    reflections = [f"grpc.reflection.{version}.ServerReflection" for version in ("v1", "v1alpha")]
    assert {SERVICE, "grpc.health.v1.Health", *reflections} <= set(listed)
    for name in listed:
        assert f"service {name.rpartition('.')[2]} " in await grpcurl(pool.address, "describe", name)


async def test_an_image_is_drawn(pool: LocalPool) -> None:
    """From JSON, with fields by the names of the contract."""
    asked = json.dumps({"prompt": "a red circle", "seed": "3", "exact": True})
    said = await grpcurl("-d", asked, pool.address, f"{SERVICE}/Generate")
    events, decoder = [], json.JSONDecoder()
    while said := said.lstrip():
        event, end = decoder.raw_decode(said)
        events.append(event)
        said = said[end:]
    data = b"".join(base64.b64decode(event["chunk"]["data"]) for event in events if "chunk" in event)
    assert Image.open(io.BytesIO(data)).size == (48, 48)
    assert events[-1]["done"]["seed"] == "3"
