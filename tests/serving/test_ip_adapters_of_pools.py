"""An IP-Adapter over real processes, from files that lie where their published repository has them."""

import asyncio
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import yaml

from t2i_protos.v1 import drawing_pb2, gateway_pb2
from t2i_testing_kit.serving import Client, WritePool, image_of, violated_fields
from t2i_testing_kit.tiny_pipelines.families import save_family
from t2i_testing_kit.tiny_pipelines.ip_adapters import PUBLISHED, PUBLISHED_ENCODER, save_ip_adapter
from t2i_testing_kit.tiny_pipelines.stock import TinyRequest, load_stock, sample_image, stock_run
from t2ictl.local_pool import LocalOptions
from t2ictl.processes import ServerProcess

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module")]
FAMILY, STEPS = "sdxl", 2
FACE = sample_image(40, 24)
ROUNDING = 1  # of 255: the worker may sum in another order than the test


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ip-adapter")
    model = save_family(FAMILY, folder / "model")
    save_ip_adapter(model, folder / "adapters", weights_in=PUBLISHED, encoder=PUBLISHED_ENCODER)
    return folder


def pool_of(write_pool: WritePool, made: Path, **component: Any) -> LocalOptions:
    options = write_pool(workers=1, engine="diffusion", slo_ms=60_000, embedder="builtin://scenes")
    document = yaml.safe_load(options.pool_file.read_text())
    face = {"name": "face", "kind": "IPAdapter", "source": (made / "adapters").as_uri(), "weightName": PUBLISHED}
    own: Mapping[str, Any] = {"source": (made / "model").as_uri(), "width": 48, "height": 32}
    document["spec"]["model"] |= {**own, "components": [{**face, "imageEncoder": PUBLISHED_ENCODER, **component}]}
    options.pool_file.write_text(yaml.safe_dump(document))
    return options


@pytest.fixture(scope="module")
def options(write_pool: WritePool, made: Path) -> LocalOptions:
    return pool_of(write_pool, made, scalePercent=70)


def shown(component: str = "face", **fields: Any) -> gateway_pb2.GenerateRequest:
    file = io.BytesIO()
    FACE.save(file, "PNG")
    image = drawing_pb2.ControlImage(component=component, image=file.getvalue(), **fields)
    drawing = drawing_pb2.Drawing(images=drawing_pb2.InputImages(ip_adapter_images=[image]))
    return gateway_pb2.GenerateRequest(
        prompt=TinyRequest().prompt, seed=1, num_inference_steps=STEPS, guidance_scale=5.0, drawing=drawing
    )


@pytest.mark.parametrize("scale", [None, 1.5], ids=["the pool's scale", "its own scale"])
async def test_image_is_that_of_diffusers_with_it(scale: float | None, client: Client, made: Path) -> None:
    events = await client.events(shown() if scale is None else shown(scale=scale), 60)
    stock = load_stock(made / "model")
    folder, _, name = PUBLISHED.partition("/")
    where = {"subfolder": folder, "weight_name": name, "image_encoder_folder": PUBLISHED_ENCODER}
    stock.load_ip_adapter(made / "adapters", **where)
    stock.set_ip_adapter_scale(scale or 0.7)
    request = TinyRequest(seed=1, steps=STEPS, guidance=5.0, extra={"ip_adapter_image": FACE})
    wanted = await asyncio.to_thread(stock_run, stock, FAMILY, request)
    assert np.abs(image_of(events).astype(int) - wanted.pixels).max() <= ROUNDING
    plain = shown()
    plain.drawing.Clear()
    other = image_of(await client.events(plain, 60))
    assert np.abs(other.astype(int) - wanted.pixels).max() > ROUNDING, "the image was looked at"


async def test_bad_use_is_refused_with_its_field(client: Client) -> None:
    """By the gateway what the pool does not have, by the worker what is no image."""
    error = await client.refusal(shown("fase"), 60)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert violated_fields(error) == ["drawing.images.ip_adapter_images[0].component"]
    assert "it has face" in (error.details() or "")
    broken = shown()
    broken.drawing.images.ip_adapter_images[0].image = b"\x89PNG\r\n\x1a\nnothing more"
    error = await client.refusal(broken, 60)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert violated_fields(error) == ["drawing.images.ip_adapter_images[0].image"]


@pytest.mark.parametrize(
    ("component", "says"),
    [
        ({"weightName": "models/other.safetensors"}, "no models/other.safetensors found there"),
        ({"imageEncoder": "image_encoder"}, "no image encoder in image_encoder; set imageEncoder"),
    ],
    ids=["weights", "encoder"],
)
async def test_missing_file_is_told_before_the_model_is_read(
    component: Mapping[str, str], says: str, write_pool: WritePool, made: Path, tmp_path: Path
) -> None:
    """Reading it may take minutes. This model's weights are broken, which would be told first otherwise."""
    broken = save_family(FAMILY, tmp_path / "model")
    (broken / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"no weights")
    options = pool_of(write_pool, made, **component)
    text = options.pool_file.read_text().replace((made / "model").as_uri(), broken.as_uri())
    options.pool_file.write_text(text)
    arguments = ["--pool", str(options.pool_file), "--group", "sim", "--name", "w", "--device", "cpu"]
    worker = ServerProcess("w", "t2i_worker", arguments, tmp_path)
    await worker.start()
    assert worker.process is not None
    async with asyncio.timeout(60):
        assert await worker.process.wait() == 2
    last = worker.log_tail().splitlines()[-1]
    assert "the worker cannot start: model.components['face']" in last
    assert says in last
