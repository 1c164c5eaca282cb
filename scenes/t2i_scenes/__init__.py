"""Captioned scenes: a caption generator, a renderer, an exact scorer, and a small diffusion model trained on them.

Importing this package never imports torch; `t2i_scenes.sampling` and `t2i_scenes.train` do.
"""

from t2i_scenes.captions import caption
from t2i_scenes.generating import edit_scene, sample_scene
from t2i_scenes.model_folder import embedder_path, model_path
from t2i_scenes.reading import read_caption
from t2i_scenes.rendering import render
from t2i_scenes.scene import Fact, Scene, Thing, facts
from t2i_scenes.scoring import Score, score_image

__all__ = [
    "Fact",
    "Scene",
    "Score",
    "Thing",
    "caption",
    "edit_scene",
    "embedder_path",
    "facts",
    "model_path",
    "read_caption",
    "render",
    "sample_scene",
    "score_image",
]
