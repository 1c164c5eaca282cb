"""Samplers, adapters and components over HTTP draw what they draw over gRPC: a real worker with all of them."""

import base64
import hashlib
import io
from pathlib import Path
from typing import Any

import openai
import pytest
import yaml

from http_clients import http_of
from t2i_protos.v1 import drawing_pb2, gateway_pb2
from t2i_testing_kit.serving import Client, WritePool
from t2i_testing_kit.tiny_pipelines.adapters import save_adapter
from t2i_testing_kit.tiny_pipelines.controls import save_control
from t2i_testing_kit.tiny_pipelines.families import save_family
from t2i_testing_kit.tiny_pipelines.ip_adapters import PUBLISHED, PUBLISHED_ENCODER, save_ip_adapter
from t2i_testing_kit.tiny_pipelines.stock import sample_image
from t2ictl.local_pool import LocalOptions, LocalPool

pytestmark = [pytest.mark.process, pytest.mark.timeout(600), pytest.mark.asyncio(loop_scope="module")]
FAMILY, STEPS = "sdxl", 2
ASKED: dict[str, Any] = {"seed": 3, "num_inference_steps": STEPS, "guidance_scale": 5.0}


def png(width: int, height: int) -> bytes:
    file = io.BytesIO()
    sample_image(width, height).save(file, "PNG")
    return file.getvalue()


EDGES, FACE = png(48, 32), png(40, 24)
Images = drawing_pb2.InputImages
WAYS: dict[str, tuple[dict[str, Any], drawing_pb2.Drawing]] = {
    "nothing": ({}, drawing_pb2.Drawing()),
    "a sampler": ({"sampler": "euler-a"}, drawing_pb2.Drawing(sampler="euler-a")),
    "an adapter": (
        {"lora": {"name": "style", "scale": 0.5}},
        drawing_pb2.Drawing(adapters=[drawing_pb2.AdapterUse(name="style", scale=0.5)]),
    ),
    "a ControlNet": (
        {"control_images": [{"component": "edges", "image": base64.b64encode(EDGES).decode(), "scale": 0.7}]},
        drawing_pb2.Drawing(
            images=Images(control_images=[drawing_pb2.ControlImage(component="edges", image=EDGES, scale=0.7)])
        ),
    ),
    "an IP-Adapter": (
        {"ip_adapter_images": [{"component": "face", "image": base64.b64encode(FACE).decode()}]},
        drawing_pb2.Drawing(images=Images(ip_adapter_images=[drawing_pb2.ControlImage(component="face", image=FACE)])),
    ),
}


@pytest.fixture(scope="module")
def options(write_pool: WritePool, tmp_path_factory: pytest.TempPathFactory) -> LocalOptions:
    made, folder = write_pool(engine="diffusion", slo_ms=60_000, sizes="[]"), tmp_path_factory.mktemp("parts")
    model = save_family(FAMILY, folder / "model")
    save_control(model, folder / "edges")
    save_ip_adapter(model, folder / "face", weights_in=PUBLISHED, encoder=PUBLISHED_ENCODER)
    style = save_adapter(model, folder / "style", seed=1)
    document = yaml.safe_load(made.pool_file.read_text())
    face = {"name": "face", "kind": "IPAdapter", "source": (folder / "face").as_uri(), "weightName": PUBLISHED}
    document["spec"]["model"] |= {
        "source": model.as_uri(),
        "width": 48,
        "height": 32,
        "adapters": [{"name": "style", "source": Path(style).as_uri()}],
        "components": [
            {"name": "edges", "source": (folder / "edges").as_uri()},
            {**face, "imageEncoder": PUBLISHED_ENCODER},
        ],
    }
    made.pool_file.write_text(yaml.safe_dump(document))
    return made


def drawn(answer: Any) -> str:
    """Which image it is."""
    return hashlib.sha256(base64.b64decode(answer.data[0].b64_json)).hexdigest()


async def test_images_are_those_of_grpc(client: openai.AsyncOpenAI, pool: LocalPool) -> None:
    """Each way to draw gives an image of its own, the same at both doors."""
    by_grpc, found = Client(pool.address), {}
    for way, (fields, drawing) in WAYS.items():
        found[way] = drawn(await client.images.generate(prompt="a red circle", extra_body={**ASKED, **fields}))
        request = gateway_pb2.GenerateRequest(prompt="a red circle", drawing=drawing, **ASKED)
        events = await by_grpc.events(request)
        data = b"".join(event.chunk.data for event in events if event.HasField("chunk"))
        assert hashlib.sha256(data).hexdigest() == found[way], way
    assert len({*found.values()}) == len(WAYS)
    await by_grpc.channel.close()


async def test_a_form_brings_them_too(client: openai.AsyncOpenAI, pool: LocalPool) -> None:
    """As the official client writes them: names with brackets, and a file for the IP-Adapter."""
    asked = {**ASKED, "strength": 0.9, "num_inference_steps": 4}
    fields: tuple[dict[str, Any], ...] = (
        {},
        {"lora": {"name": "style", "scale": 0.5}},
        {"arguments": {"guidance_rescale": 0.7}},
        {"sampler": "euler-a"},
    )
    found = {
        drawn(await client.images.edit(image=EDGES, prompt="a red circle", extra_body={**asked, **one}))
        for one in fields
    }
    async with http_of(pool) as http:
        files = {"image": EDGES, "ip_adapter_image": FACE}
        shown = {"prompt": "a red circle", "ip_adapter": "face", "ip_adapter_scale": "0.7", **asked}
        answer = await http.post("/v1/images/edits", data=shown, files=files)
        assert answer.status_code == 200, answer.text
        found.add(hashlib.sha256(base64.b64decode(answer.json()["data"][0]["b64_json"])).hexdigest())
        alone = await http.post("/v1/images/edits", data={**shown, "ip_adapter": ""}, files={"image": EDGES})
        assert alone.json()["error"]["param"] == "ip_adapter_image"
    assert len(found) == len(fields) + 1


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({"sampler": "nothing-known"}, "sampler", "euler"),
        ({"true_cfg_scale": 3}, "true_cfg_scale", "takes no such argument; leave it out"),
        ({"lora": {"name": "other"}}, "lora", "those of the pool: style"),
        (
            {"control_images": [{"component": "edges", "image": base64.b64encode(EDGES[:60]).decode()}]},
            "control_images[0].image",
            "",
        ),
    ],
)
async def test_what_the_model_cannot_do_is_named(
    client: openai.AsyncOpenAI, fields: dict[str, Any], param: str, says: str
) -> None:
    """By the gateway, or by the worker that knows the model: in either case as the client called it."""
    with pytest.raises(openai.BadRequestError) as refused:
        await client.images.generate(prompt="a red circle", extra_body={**ASKED, **fields})
    assert refused.value.param == param
    assert says in refused.value.message
    assert "drawing." not in refused.value.message
