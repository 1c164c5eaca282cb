"""The embedded model behind real processes: a similar prompt starts from a cached latent, and never from a bad one."""

from pathlib import Path

import grpc
import numpy as np
import pytest

from t2i_policy.profile_document import render_profile
from t2i_protos.v1 import drawing_pb2, gateway_pb2
from t2i_scenes import sample_scene, score_image
from t2i_scenes.captions import caption
from t2i_testing_kit.serving import Client, WritePool, image_of, latent_files, make_profile, violated_fields
from t2ictl.commands.request import tell_cut
from t2ictl.local_pool import LocalOptions, LocalPool

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module")]
Request = gateway_pb2.GenerateRequest


@pytest.fixture(scope="module")
def options(write_pool: WritePool) -> LocalOptions:
    made = write_pool(workers=1, engine="diffusion", slo_ms=60_000)
    assert made.profile is not None
    made.profile.write_text(render_profile(make_profile((0.05,))))
    return made


def folder_of(options: LocalOptions) -> Path:
    assert options.folder is not None
    return options.folder


async def test_same_prompt_again_skips_steps(client: Client) -> None:
    """The first run of a prompt is exact and leaves latents; the second starts from them, another tenant's does not."""
    prompt = "a big red circle left of a small blue square on a plain green background"
    first = (await client.events(Request(prompt=prompt, seed=1), 60, "alice"))[-1].done
    again = (await client.events(Request(prompt=prompt, seed=2), 60, "alice"))[-1].done
    stranger = (await client.events(Request(prompt=prompt, seed=3), 60, "bob"))[-1].done
    assert [one.served.skipped_steps for one in (first, again, stranger)] == [0, 10, 0]


async def test_own_sampler_is_used_and_nothing_is_approximated(client: Client) -> None:
    """Nobody measured what levels lose with it. The image is another one than with the model's own sampler."""
    prompt, drawing = "a small yellow square on a plain blue background", drawing_pb2.Drawing(sampler="unipc")
    plain = await client.events(Request(prompt=prompt, seed=1), 60)
    other = await client.events(Request(prompt=prompt, seed=1, drawing=drawing), 60)
    assert other[0].accepted.decision.reason == "Unmeasured"
    assert other[-1].done.served.skipped_steps == 0
    assert not np.array_equal(image_of(plain), image_of(other))


async def test_sampler_that_does_not_suit_the_model_is_named(client: Client) -> None:
    """Only the worker knows its model: DDIM has another kind of noise."""
    error = await client.refusal(Request(prompt="a red circle", drawing=drawing_pb2.Drawing(sampler="ddim")), 60)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert violated_fields(error) == ["drawing.sampler"]


async def test_images_follow_their_captions(client: Client) -> None:
    """Through the whole path the image is that of its caption, exact and from a cached latent."""
    rng = np.random.default_rng(21)
    scenes = [sample_scene(rng) for _ in range(6)]
    for seed, exact in ((1, True), (2, False)):
        scores = []
        for scene in scenes:
            events = await client.events(Request(prompt=caption(scene, rng), seed=seed, exact=exact), 60)
            scores.append(score_image(image_of(events), scene).quality)
        assert np.mean(scores) > 0.5


@pytest.mark.parametrize("damage", ["flipped", "truncated", "foreign", "deleted"])
async def test_damaged_latent_is_never_drawn_from(client: Client, options: LocalOptions, damage: str) -> None:
    """Whatever happened to the file: served with all steps, the reason says so, and the image is a good one."""
    rng = np.random.default_rng(len(damage) * 100 + ord(damage[1]))
    scene, tenant = sample_scene(rng), f"tenant-{damage}"
    prompt = caption(scene, rng)
    before = set(latent_files(folder_of(options)))
    full = await client.events(Request(prompt=prompt, seed=1, exact=True), 60, tenant)
    new = [path for path in latent_files(folder_of(options)) if path not in before]
    assert new
    for path in new:
        data = path.read_bytes()
        match damage:
            case "flipped":
                path.write_bytes(data[:-200] + bytes([data[-200] ^ 1]) + data[-199:])
            case "truncated":
                path.write_bytes(data[: len(data) // 2])
            case "foreign":
                path.write_bytes(sorted(before)[0].read_bytes())
            case _:
                path.unlink()
    events = await client.events(Request(prompt=prompt, seed=1), 60, tenant)
    reasons = {"flipped": "Corrupt", "truncated": "Corrupt", "foreign": "Mismatch", "deleted": "Missing"}
    assert (events[-1].done.served.skipped_steps, events[-1].done.reason) == (0, f"Latent{reasons[damage]}")
    assert np.array_equal(image_of(events), image_of(full))


async def test_restarted_gateway_remembers_the_store(options: LocalOptions, pool: LocalPool, client: Client) -> None:
    """What the folder holds is found again by a new gateway of the same pool."""
    prompt = "three orange rings in a row on a striped white background"
    await client.done(Request(prompt=prompt, exact=True), 60, "carol")
    async with LocalPool(options) as second:
        other = Client(second.address)
        assert (await other.done(Request(prompt=prompt), 60, "carol")).served.skipped_steps == 10
        await other.channel.close()


async def test_prompt_that_is_too_long_is_told_to_its_sender(client: Client) -> None:
    """The image is drawn from what was read; the answer names the encoder and the character where it stopped."""
    prompt = "a big red circle left of a small blue square on a plain green background " * 3
    done = (await client.events(Request(prompt=prompt, seed=1), 60, "carol"))[-1].done
    (cut,) = done.prompt_cuts
    assert (cut.encoder, cut.kept_tokens, cut.total_tokens) == ("text_encoder", 26, 45)
    assert len(prompt[: cut.kept_characters].split()) == 26
    assert tell_cut(cut) == "the prompt is cut after 120 characters for text_encoder: it reads 26 of 45 tokens"
    short = (await client.events(Request(prompt="a red circle", seed=1), 60, "carol"))[-1].done
    assert list(short.prompt_cuts) == []
