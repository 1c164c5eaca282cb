"""Scenes: the captions say what the scene holds, the scorer is exact, and the shipped model loads and draws."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from t2i_scenes import caption, edit_scene, embedder_path, facts, model_path, render, sample_scene, score_image
from t2i_scenes.captions import vocabulary
from t2i_scenes.model_folder import distilled_path
from t2i_scenes.sampling import ScenesModel
from t2i_scenes.scene import COLOURS
from t2i_sources.embedder import Embedder

COUNT = 40


def rng(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_captions_use_the_vocabulary_only() -> None:
    """Every word that a caption may hold has its own token, so none is unknown to the model."""
    draw, known = rng(), set(vocabulary())
    words = {word for _ in range(300) for word in caption(sample_scene(draw), draw).replace(",", " ").split()}
    assert words <= known


def test_same_stream_same_scenes() -> None:
    """Training and every table are reproducible from their seed."""
    first, second = ([caption(sample_scene(draw), draw) for _ in range(20)] for draw in (rng(3), rng(3)))
    assert first == second
    assert len(set(first)) > 15


def test_edit_changes_facts_and_keeps_the_rest() -> None:
    """An edit is a near neighbour: another scene, most of whose facts still hold."""
    draw = rng()
    for _ in range(COUNT):
        scene = sample_scene(draw)
        edited = edit_scene(scene, draw, 1)
        assert edited != scene
        assert len(set(facts(edited)) & set(facts(scene))) >= len(facts(scene)) / 2 - 1


def test_rendered_picture_satisfies_its_caption_and_not_another() -> None:
    """The scorer's scale: a true picture is near 1, somebody else's far below."""
    draw = rng()
    scenes = [sample_scene(draw) for _ in range(COUNT)]
    pictures = [render(scene, draw) for scene in scenes]
    own = [score_image(picture, scene).quality for picture, scene in zip(pictures, scenes, strict=True)]
    other = [score_image(pictures[n - 1], scene).quality for n, scene in enumerate(scenes)]
    assert np.mean(own) > 0.97
    assert np.mean(other) < 0.4


def test_noise_and_flat_colour_score_nothing() -> None:
    """No picture without the things in it gets credit for luck alone."""
    scene = sample_scene(rng())
    noise = rng().integers(0, 256, (48, 48, 3), np.uint8)
    assert score_image(noise, scene).quality < 0.3
    assert score_image(np.full((48, 48, 3), 128, np.uint8), scene).quality < 0.3


def test_blur_costs_fine_quality() -> None:
    """Cheap sampling blurs: the facts may hold, the fine part falls."""
    draw = rng(2)
    losses = []
    for _ in range(10):
        scene = sample_scene(draw)
        sharp = render(scene, draw)
        wide = np.pad(sharp.astype(float), ((1, 1), (1, 1), (0, 0)), "edge")
        blurred = np.mean([wide[y : y + 48, x : x + 48] for y in range(3) for x in range(3)], 0).astype(np.uint8)
        losses.append(score_image(sharp, scene).fine_fraction - score_image(blurred, scene).fine_fraction)
    assert np.mean(losses) > 0.05


@pytest.mark.parametrize("folder", [model_path(), distilled_path()], ids=["trained", "distilled"])
def test_shipped_model_is_small_and_safe(folder: Path) -> None:
    """Weights are safetensors below 10 MB; nothing pickled ships, nor where it was made."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert [path for path in files if path.suffix == ".json" and "_name_or_path" in path.read_text()] == []
    assert sum(path.stat().st_size for path in files if path.suffix == ".safetensors") < 10_000_000
    assert not [path for path in files if path.suffix in (".bin", ".pt", ".pkl", ".ckpt")]


def test_shipped_model_draws_its_captions() -> None:
    """Far above a picture of another caption, and worse with hardly any steps: steps mean something."""
    draw = rng(11)
    scenes = [sample_scene(draw) for _ in range(16)]
    model, texts = ScenesModel.load(), [caption(scene, draw) for scene in scenes]
    steps, guidance = model.constants.default_num_inference_steps, model.constants.default_guidance_scale

    def quality(num_steps: int) -> float:
        images = model.draw(texts, range(16), num_inference_steps=num_steps, guidance_scale=guidance).images
        return float(np.mean([score_image(image, scene).quality for image, scene in zip(images, scenes, strict=True)]))

    assert quality(steps) > 0.5
    assert quality(2) < quality(steps) - 0.1


async def test_embedder_finds_paraphrases() -> None:
    """Another wording of a scene is closer than another scene, which is what the similarity bands rest on."""
    draw, embedder = rng(4), Embedder(embedder_path())
    near, far = [], []
    for _ in range(COUNT):
        scene = sample_scene(draw)
        one, other = (embedder.embed_now(caption(scene, draw)).vector for _ in range(2))
        stranger = embedder.embed_now(caption(sample_scene(draw), draw)).vector
        near.append(float(one @ other))
        far.append(float(one @ stranger))
    assert np.mean(near) > 0.9
    assert np.mean(np.array(near) > np.array(far)) > 0.95


def test_wrong_background_costs_its_fact_only() -> None:
    """A picture judged against a scene that differs in one statement loses that one."""
    draw = rng(6)
    scene = sample_scene(draw)
    taken = {scene.background, *(thing.colour for thing in scene.things)}
    other = replace(scene, background=next(colour for colour in COLOURS if colour not in taken))
    picture = render(scene, draw)
    assert 0.5 < score_image(picture, other).facts_fraction < score_image(picture, scene).facts_fraction
