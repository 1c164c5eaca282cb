"""The model card: `python -m t2i_scenes.card` measures the shipped model and writes MODEL_CARD.md and a contact sheet.

Measured on captions and seeds that training never used (another random stream).
"""

import argparse
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image

from t2i_scenes.captions import caption
from t2i_scenes.generating import sample_scene
from t2i_scenes.hyperparameters import Hyperparameters
from t2i_scenes.measuring import AskedCaption, MeasuredScores, MeasureSettings, measure
from t2i_scenes.model_folder import model_path
from t2i_scenes.rendering import render
from t2i_scenes.sampling import ScenesModel
from t2i_scenes.scoring import score_image

STEP_COUNTS = (2, 3, 4, 6, 8, 10, 12, 16, 20, 30, 40)
GUIDANCE_SCALES = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0)
SHEET_COLUMNS, SHEET_SCALE = 12, 2


def progress(title: str, done: int, total: int) -> None:
    """One line that moves."""
    print(f"\r{title:28} {done}/{total}   ", end="\n" if done == total else "", flush=True)  # noqa: T201


def ask(count: int, seed: int) -> list[AskedCaption]:
    """Captions from a random stream of their own."""
    rng = np.random.default_rng((seed, 99))
    scenes = [sample_scene(rng) for _ in range(count)]
    return [AskedCaption(scene, caption(scene, rng), int(rng.integers(1 << 31))) for scene in scenes]


def row(name: str, measured: MeasuredScores) -> str:
    """One line of a table."""
    cells = [measured.mean(field) for field in ("quality", "facts_fraction", "strict", "fine_fraction", "sharpness")]
    return f"| {name} | " + " | ".join(f"{cell:.3f}" for cell in (*cells, measured.mean("palette_distance"))) + " |"


HEAD = ["| {} | quality | facts | all facts | fine | sharpness | palette distance |", "|---|---|---|---|---|---|---|"]


def facts_table(measured: MeasuredScores) -> list[str]:
    """Share of facts that hold, by kind, and of shapes by shape and size."""
    kinds: dict[str, list[bool]] = defaultdict(list)
    for score in measured.scores:
        for fact, holds in score.held:
            kinds[fact.kind].append(holds)
            if fact.kind in ("shape", "pattern", "count"):
                kinds[f"{fact.kind}: {fact.value}"].append(holds)
    lines = ["| statement | holds | of |", "|---|---|---|"]
    return [*lines, *(f"| {kind} | {np.mean(kinds[kind]):.2f} | {len(kinds[kind])} |" for kind in sorted(kinds))]


def calibration(asked: list[AskedCaption]) -> str:
    """What the scorer says of rendered pictures, right and wrong."""
    rng = np.random.default_rng(5)
    pictures = [render(one.scene, rng) for one in asked]
    right = np.mean([score_image(picture, one.scene).quality for picture, one in zip(pictures, asked, strict=True)])
    others = [*asked[1:], asked[0]]
    wrong = np.mean([score_image(picture, one.scene).quality for picture, one in zip(pictures, others, strict=True)])
    return f"Rendered pictures score {right:.3f} against their own caption and {wrong:.3f} against another one."


def write_sheet(measured: MeasuredScores, to: Path) -> None:
    """The first images, enlarged, without text (captions are in the card)."""
    images = measured.images[: SHEET_COLUMNS * 5]
    side = images.shape[1] * SHEET_SCALE
    sheet = Image.new("RGB", (SHEET_COLUMNS * (side + 4), 5 * (side + 4)), "white")
    for index, image in enumerate(images):
        place = (index % SHEET_COLUMNS * (side + 4), index // SHEET_COLUMNS * (side + 4))
        sheet.paste(Image.fromarray(image).resize((side, side), Image.Resampling.NEAREST), place)
    to.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(to)


def write_card(count: int, seed: int, card: Path, sheet: Path) -> None:
    """Measure and write."""
    began = time.monotonic()
    model, asked, params = ScenesModel.load(), ask(count, seed), Hyperparameters()
    steps, guidance = model.constants.default_num_inference_steps, model.constants.default_guidance_scale
    by_steps = {n: measure(model, asked, MeasureSettings(n, guidance), f"{n} steps", progress) for n in STEP_COUNTS}
    by_guidance = {
        w: measure(model, asked, MeasureSettings(steps, w), f"guidance {w}", progress) for w in GUIDANCE_SCALES
    }
    base = by_guidance.get(guidance) or measure(model, asked, MeasureSettings(steps, guidance), "base", progress)
    write_sheet(base, sheet)
    size = sum(path.stat().st_size for path in model_path().rglob("*.safetensors")) / 1e6
    minutes = (time.monotonic() - began) / 60
    lines = [
        "# Model card: scenes",
        "",
        f"A text-to-image diffusion model of {size:.1f} MB that draws captioned 48x48 scenes of one to three things:",
        "the real model with which t2i-serving is tested, demonstrated and measured without a GPU or a download.",
        "",
        f"![contact sheet](../{sheet.as_posix()})",
        "",
        f"- **Parts**: UNet {params.unet.block_channels} over pixel_unshuffle({params.unet.latent_patch_size})",
        f"  latents, BERT caption encoder ({params.text.layers} layers of {params.text.hidden_size}), flow matching,",
        "  Euler steps. A diffusers folder with fp16 safetensors.",
        f"- **Training**: `make train-scenes`, {params.steps} steps of {params.batch} freshly rendered scenes,",
        "  one seed, about an hour on two cores. No data but its own renderer.",
        f"- **Base schedule**: {steps} steps, guidance {guidance:g}.",
        f"- **Scorer**: exact, no training (`t2i_scenes/scoring.py`). {calibration(asked)}",
        "",
        f"Measured on {count} captions and seeds outside the training stream ({minutes:.0f} min).",
        "",
        f"## By number of steps (guidance {guidance:g})",
        "",
        HEAD[0].format("steps"),
        HEAD[1],
        *(row(str(n), measured) for n, measured in by_steps.items()),
        "",
        f"## By guidance ({steps} steps)",
        "",
        HEAD[0].format("guidance"),
        HEAD[1],
        *(row(f"{w:g}", measured) for w, measured in by_guidance.items()),
        "",
        f"## Statements that hold ({steps} steps, guidance {guidance:g})",
        "",
        *facts_table(base),
        "",
        "## What it is bad at",
        "",
        "- Everything outside its captions: it knows about a hundred words; a prompt of unknown words gives some",
        "  scene, and the embedder finds all such prompts alike.",
        "- Weak rows of the table above: see the shapes and patterns with the lowest share.",
        "- Captions with three things are harder than with one.",
        "",
    ]
    card.write_text("\n".join(lines))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", type=int, default=128)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--card", type=Path, default=Path("scenes/MODEL_CARD.md"))
    parser.add_argument("--sheet", type=Path, default=Path("docs/images/scenes-contact-sheet.png"))
    arguments = parser.parse_args()
    write_card(arguments.captions, arguments.seed, arguments.card, arguments.sheet)


if __name__ == "__main__":
    main()
