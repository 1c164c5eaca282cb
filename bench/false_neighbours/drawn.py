"""Near neighbours of the embedded model's captions: how near its embedder puts them, what starting from them loses.

Every asked caption has neighbours of these kinds: paraphrases of the same scene, one and two facts edited, and the
twins that `t2ictl profile` makes of its words. Losses are by the exact scorer, beside the exact run of the same seed.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.kit.caption_runs import CaptionRuns
from bench.kit.output import progress
from t2i_policy.distinguishing_words import words_agree
from t2i_policy.level import Level
from t2i_profiler.twins import make_twins
from t2i_scenes import caption, edit_scene, embedder_path, sample_scene
from t2i_scenes.measuring import AskedCaption, MeasureSettings, measure
from t2i_scenes.sampling import ScenesModel
from t2i_sources.embedder import Embedder

SKIPS = (6, 9)
PARAPHRASE, ONE_EDIT, TWO_EDITS = "paraphrase", "one fact edited", "two facts edited"
Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class NearCaptions:
    """A caption that is asked and one that may be cached, what the second is to the first, and their cosine."""

    asked: AskedCaption
    kept: AskedCaption
    kind: str
    similarity: float

    @property
    def agree(self) -> bool | None:
        return words_agree(self.asked.text, self.kept.text)


def make_pairs(count: int, rng: np.random.Generator) -> list[NearCaptions]:
    """All neighbours of `count` captions, however near; those that the embedder does not read whole are left out."""
    embedder = Embedder(embedder_path())
    found = []
    for _ in range(count):
        scene = sample_scene(rng)
        asked = AskedCaption(scene, caption(scene, rng), int(rng.integers(1 << 31)))
        texts = {
            PARAPHRASE: caption(scene, rng),
            ONE_EDIT: caption(edit_scene(scene, rng, 1), rng),
            TWO_EDITS: caption(edit_scene(scene, rng, 2), rng),
            **{twin.kind.value: twin.prompt for twin in make_twins(asked.text, rng)},
        }
        vector = embedder.embed_now(asked.text).vector
        for kind, text in texts.items():
            near = embedder.embed_now(text)
            if near.unread is None and text != asked.text:
                kept = AskedCaption(scene, text, int(rng.integers(1 << 31)))  # its own score is not looked at
                found.append(NearCaptions(asked, kept, kind, float(near.vector @ vector)))
    return found


def draw_block(count: int, nearest: float, seed: int) -> list[Document]:
    """The pairs of `count` captions that are at least so near, each drawn at SKIPS from the other's final latents."""
    rng = np.random.default_rng([seed, 23])
    pairs = [one for one in make_pairs(count, rng) if one.similarity >= nearest]
    model = ScenesModel.load()
    steps = model.constants.default_num_inference_steps
    settings = MeasureSettings(steps, model.constants.default_guidance_scale, keep_before=[steps])
    runs = CaptionRuns(
        model,
        steps,
        [one.kept for one in pairs],
        [one.asked for one in pairs],
        np.arange(len(pairs)),
        np.array([one.similarity for one in pairs]),
        measure(model, [one.kept for one in pairs], settings, "neighbours", progress),
    )
    asked = list(dict.fromkeys(one.asked for one in pairs))
    exact = measure(model, asked, MeasureSettings(steps, settings.guidance_scale), "exact", progress)
    score_of = {one: score.quality for one, score in zip(asked, exact.scores, strict=True)}
    resumed = {skip: runs.draw(Level(skip, steps)).scores for skip in SKIPS}
    return [
        {
            "block": seed,
            "asked": asked.index(one.asked),
            "kind": one.kind,
            "similarity": round(one.similarity, 4),
            "agree": one.agree,
            "exact": score_of[one.asked],
            **{f"skip {skip}": scores[at].quality for skip, scores in resumed.items()},
        }
        for at, one in enumerate(pairs)
    ]
