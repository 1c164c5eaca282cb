"""Captions of the embedded model are read back to the scenes that they state; other prompts are no captions."""

import numpy as np
import pytest

from t2i_scenes import caption, read_caption, sample_scene


def test_every_caption_is_read_as_its_scene() -> None:
    rng = np.random.default_rng(0)
    for _ in range(2000):
        scene = sample_scene(rng)
        said = caption(scene, rng)
        assert read_caption(said) == scene, said
        assert read_caption(f"  {said.upper()}. ") == scene


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "a red cat",
        "a small red circle in the center",  # without a background
        "a small red circle in the center on a plain red background",  # cannot be seen
        "a red circle in the center on a plain blue background",  # of which size
        "two small red circles in a row on a plain blue background",  # an arrangement of three
        "a small red circle and a small red ring on a plain blue background",
        "on a plain blue background, ",
    ],
)
def test_what_is_no_caption_has_no_scene(prompt: str) -> None:
    assert read_caption(prompt) is None
