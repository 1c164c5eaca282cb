"""Real processes with the embedded model draw from an image: its steps are counted, and nothing of it stays."""

import asyncio
import io
from pathlib import Path

import grpc
import numpy as np
import pytest
import pytest_asyncio
from PIL import Image as PillowImage

from t2i_protos.v1 import drawing_pb2, gateway_pb2
from t2i_testing_kit.serving import Client, WritePool, image_of, latent_files, violated_fields
from t2ictl.local_pool import LocalOptions, LocalPool

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module")]
Request = gateway_pb2.GenerateRequest
RED = "a large red circle left of a small blue square on a plain yellow background"
GREEN = "a large green circle left of a small blue square on a plain yellow background"


@pytest.fixture(scope="module")
def options(write_pool: WritePool) -> LocalOptions:
    return write_pool(workers=1, engine="diffusion", slo_ms=60_000)


def folder_of(options: LocalOptions) -> Path:
    assert options.folder is not None
    return options.folder


def from_image(data: bytes, strength: float | None = 0.6, prompt: str = GREEN, **changes: object) -> Request:
    images = drawing_pb2.InputImages(init_image=data, strength=strength)
    return Request(prompt=prompt, seed=2, drawing=drawing_pb2.Drawing(images=images), **changes)  # type: ignore[arg-type]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def red(pool: LocalPool) -> bytes:
    client = Client(pool.address)
    events = await client.events(Request(prompt=RED, seed=1, exact=True), 60)
    await client.channel.close()
    return b"".join(event.chunk.data for event in events)


async def test_color_changes_and_the_scene_stays(client: Client, options: LocalOptions, red: bytes) -> None:
    """0.6 of 20 steps run. It is served exact though the red prompt is cached and similar, and leaves no latent."""
    before = latent_files(folder_of(options))
    events = await client.events(from_image(red, preview_every_steps=6), 60)
    done, decision = events[-1].done, events[0].accepted.decision
    assert decision.reason == "Unmeasured"
    assert (done.served.skipped_steps, done.served.num_inference_steps) == (0, 20)
    progress = [(one.progress.step, one.progress.num_inference_steps) for one in events if one.HasField("progress")]
    assert progress == [(step, 12) for step in range(1, 13)]
    assert [one.preview.step for one in events if one.HasField("preview")] == [6]
    assert latent_files(folder_of(options)) == before
    ours, start = image_of(events).astype(int), np.asarray(PillowImage.open(io.BytesIO(red))).astype(int)
    other = image_of(await client.events(Request(prompt=GREEN, seed=2, exact=True), 60)).astype(int)
    assert np.abs(ours - start).mean() < np.abs(other - start).mean()
    changed = np.abs(ours - start).max(axis=-1) > 100
    assert 0.02 < changed.mean() < 0.5, "the circle alone is another"


async def test_several_images_start_from_one(client: Client, red: bytes) -> None:
    """Seeds in a row, each of them another image."""
    events = await client.events(from_image(red, num_images=3), 60)
    images = [image_of(event for event in events if event.image_index == index).tobytes() for index in range(3)]
    assert len(set(images)) == 3


async def test_other_image_under_one_request_id_is_another_request(client: Client, red: bytes) -> None:
    """The same bytes are answered from memory, others are refused."""
    request = from_image(red, request_id="mine")
    first, again = await client.events(request, 60), await client.events(request, 60)
    assert again[-1].done.replayed
    assert np.array_equal(image_of(first), image_of(again))
    request.drawing.images.init_image = red + b"\0"
    assert (await client.refusal(request, 60)).code() is grpc.StatusCode.ALREADY_EXISTS


@pytest.mark.parametrize(
    ("images", "field"),
    [
        ({"strength": 0.01}, "strength"),
        ({"mask": b"\xff\xd8\xff"}, "mask"),
        ({"reference_images": [b"\xff\xd8\xff"]}, "reference_images"),
        ({"init_image": b"\x89PNG\r\n\x1a\nnothing more"}, "init_image"),
    ],
    ids=lambda one: str(one)[:24],
)
async def test_what_cannot_be_drawn_is_named(client: Client, red: bytes, images: dict[str, object], field: str) -> None:
    """By the gateway what no worker takes, by the worker what only it can see."""
    request = from_image(red, None)
    request.drawing.images.MergeFrom(drawing_pb2.InputImages(**images))  # type: ignore[arg-type]
    error = await client.refusal(request, 60)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert violated_fields(error) == [f"drawing.images.{field}"]


async def test_large_files_pass_and_logs_hold_nothing_of_them(
    client: Client, options: LocalOptions, pool: LocalPool
) -> None:
    """Eight megabytes of noise, which JPEG cannot shrink; neither bytes nor prompts are in any log."""
    out = io.BytesIO()
    noise = np.random.default_rng(3).integers(0, 255, (1600, 1600, 3), np.uint8)
    PillowImage.fromarray(noise).save(out, "PNG")
    assert 7 << 20 < len(out.getvalue()) < 8 << 20
    await client.events(from_image(out.getvalue()), 60)
    await client.refusal(from_image(out.getvalue()[:1_000_000]), 60)
    logs = b"".join([await asyncio.to_thread(path.read_bytes) for path in folder_of(options).glob("*.log")])
    assert logs
    for secret in (b"green circle", b"IHDR", out.getvalue()[5000:5012], repr(out.getvalue()[5000:5012]).encode()):
        assert secret not in logs
