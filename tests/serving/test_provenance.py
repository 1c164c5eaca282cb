"""Image files say that a model made them, how, and by whom: to readers that know nothing of us."""

import asyncio
import io
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pyexiv2
import pytest
import pytest_asyncio
from PIL import Image
from typer.testing import CliRunner

from t2i_policy.profile_document import render_profile
from t2i_protos.v1 import gateway_pb2, level_pb2
from t2i_testing_kit.serving import Client, WritePool, image_of, make_profile, violated_fields
from t2ictl.app import app
from t2ictl.local_pool import LocalOptions, LocalPool

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module")]
Request = gateway_pb2.GenerateRequest
PROMPT = 'a "big" red circle & a <small> blue square\non a plain green background \x01'
FORMATS = {
    "png": level_pb2.OUTPUT_FORMAT_PNG,
    "jpeg": level_pb2.OUTPUT_FORMAT_JPEG,
    "webp": level_pb2.OUTPUT_FORMAT_WEBP,
}


def write_real_pool(write_pool: WritePool, provenance: str = "") -> LocalOptions:
    made = write_pool(workers=1, engine="diffusion", slo_ms=60_000)
    assert made.profile is not None
    made.profile.write_text(render_profile(make_profile((0.05,))))
    with made.pool_file.open("a") as file:
        file.write(provenance)
    return made


@pytest.fixture(scope="module")
def options(write_pool: WritePool) -> LocalOptions:
    return write_real_pool(write_pool)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def plain(write_pool: WritePool) -> AsyncIterator[Client]:
    """A client of a pool whose files hold pixels alone."""
    async with LocalPool(write_real_pool(write_pool, "  provenance: {metadata: false}\n")) as pool:
        client = Client(pool.address)
        yield client
        await client.channel.close()


def file_of(events: list[gateway_pb2.GenerateEvent]) -> bytes:
    return b"".join(event.chunk.data for event in events if event.HasField("chunk"))


def told_by(data: bytes) -> dict[str, str]:
    """As Exiv2 reads it, which gimp, darktable and digiKam use."""
    with pyexiv2.ImageData(data) as image:
        return {name.removeprefix("Xmp."): value for name, value in image.read_xmp().items()}


@pytest.mark.parametrize("kind", FORMATS)
async def test_any_reader_learns_how_the_file_was_made(pool: LocalPool, client: Client, kind: str) -> None:
    """The mark of generated media, and what a person needs to find the run again. Not the prompt."""
    events = await client.events(Request(prompt=PROMPT, seed=7, output_format=FORMATS[kind], exact=True), 60)
    told = told_by(file_of(events))
    source = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
    assert told["iptcExt.DigitalSourceType"] == source
    assert told["xmp.CreatorTool"].startswith("t2i-serving ")
    assert (told["t2i.Seed"], told["t2i.Pool"], told["t2i.Model"]) == ("7", "test", "builtin://scenes")
    assert (told["t2i.Level"], told["t2i.NumInferenceSteps"], told["t2i.SkippedSteps"]) == ("20 steps", "20", "0")
    assert len(told["t2i.ModelDigest"]) > 10
    assert b"red circle" not in file_of(events)


async def test_level_is_the_one_that_ran(client: Client) -> None:
    """A prompt that is asked again starts from its latent; with the prompt in the file it is the same prompt still."""
    prompt = "three orange rings in a row on a striped white background"
    await client.events(Request(prompt=prompt, seed=1, exact=True), 60)
    events = await client.events(Request(prompt=prompt, seed=2, prompt_in_file=True), 60)
    told = told_by(file_of(events))
    assert events[-1].done.served.skipped_steps == 10
    assert (told["t2i.SkippedSteps"], told["t2i.Level"]) == ("10", "skipping 10 of 20 steps")


async def test_request_may_put_its_prompt_into_the_file(client: Client) -> None:
    """Whatever its characters are. The one that no XML may hold becomes a mark."""
    request = Request(prompt=PROMPT, negative_prompt="blur", seed=1, prompt_in_file=True)
    for kind, asked in FORMATS.items():
        request.output_format = asked
        told = told_by(file_of(await client.events(request, 60)))
        assert told["iptcExt.AIPromptInformation"] == PROMPT.replace("\x01", "\ufffd"), kind
        assert told["t2i.NegativePrompt"] == "blur"


async def test_longest_prompts_fit_into_a_jpeg(client: Client) -> None:
    """Its packet has one segment of 64 KiB; these take six bytes a character."""
    longest = "'\"" * 2048
    request = Request(prompt=longest, negative_prompt=longest, prompt_in_file=True)
    request.output_format = level_pb2.OUTPUT_FORMAT_JPEG
    told = told_by(file_of(await client.events(request, 60)))
    assert (told["iptcExt.AIPromptInformation"], told["t2i.NegativePrompt"]) == (longest, longest)


async def test_changed_images_are_told_from_drawn_ones(client: Client) -> None:
    """What begins with a picture of somebody's is a composite."""
    picture = io.BytesIO()
    Image.new("RGB", (48, 48), "blue").save(picture, "png")
    request = Request(prompt="a red circle", seed=3)
    request.drawing.images.init_image = picture.getvalue()
    told = told_by(file_of(await client.events(request, 60)))
    assert told["iptcExt.DigitalSourceType"].endswith("/compositeWithTrainedAlgorithmicMedia")


@pytest.mark.parametrize("kind", FORMATS)
async def test_pixels_are_those_of_a_file_without_metadata(client: Client, plain: Client, kind: str) -> None:
    """Metadata changes no pixel, a run is the same twice to the byte, and a pool may leave it out."""
    request = Request(prompt="a red circle", seed=11, exact=True, output_format=FORMATS[kind])
    told, again, bare = [await one.events(request, 60) for one in (client, client, plain)]
    assert np.array_equal(image_of(told), image_of(bare))
    assert file_of(told) == file_of(again)
    assert told_by(file_of(bare)) == {}
    assert 0 < len(file_of(told)) - len(file_of(bare)) < 1600


async def test_prompt_has_no_place_in_a_file_without_metadata(plain: Client) -> None:
    error = await plain.refusal(Request(prompt="a red circle", prompt_in_file=True))
    assert violated_fields(error) == ["prompt_in_file"]


async def test_person_can_ask_what_a_file_says(client: Client, plain: Client, tmp_path: Path) -> None:
    """`t2ictl inspect`, of a file with metadata and of one without."""
    for name, one in (("told.png", client), ("bare.png", plain)):
        (tmp_path / name).write_bytes(file_of(await one.events(Request(prompt="a red circle", seed=5), 60)))
    told, bare = [
        await asyncio.to_thread(CliRunner().invoke, app, ["inspect", str(tmp_path / name)])
        for name in ("told.png", "bare.png")
    ]
    assert told.exit_code == bare.exit_code == 0
    assert "t2i:Seed" in told.output
    assert "trainedAlgorithmicMedia" in told.output
    assert "no metadata" in bare.output
