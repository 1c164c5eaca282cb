"""The model card: `python -m t2i_scenes.card` measures the shipped model and writes MODEL_CARD.md and a contact sheet.

It uses captions and seeds from another random stream than training. The words of the card are in `card.md.in`. With
`--distilled` it is the card of the distilled model, of `card-distilled.md.in`.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from t2i_scenes.captions import caption
from t2i_scenes.distil import DistilHyperparameters
from t2i_scenes.generating import sample_scene
from t2i_scenes.hyperparameters import Hyperparameters
from t2i_scenes.measuring import AskedCaption, MeasuredScores, MeasureSettings, measure
from t2i_scenes.model_folder import distilled_path, model_path
from t2i_scenes.rendering import render
from t2i_scenes.sampling import ScenesModel
from t2i_scenes.scoring import score_image

STEP_COUNTS = (2, 3, 4, 6, 8, 10, 12, 16, 20, 30, 40)
DISTILLED_STEP_COUNTS = (1, 2, 3, 4, 6, 8)
GUIDANCE_SCALES = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0)
SHEET_COLUMNS, SHEET_SCALE = 12, 2
PAGE = Path(__file__).parent / "card.md.in"
DISTILLED_PAGE = Path(__file__).parent / "card-distilled.md.in"


def progress(title: str, done: int, total: int) -> None:
    """Show progress in one line, which is overwritten."""
    print(f"\r{title:28} {done}/{total}   ", end="\n" if done == total else "", flush=True)  # noqa: T201


def ask(count: int, seed: int) -> list[AskedCaption]:
    """Draw captions from a random stream that training does not use."""
    rng = np.random.default_rng((seed, 99))
    scenes = [sample_scene(rng) for _ in range(count)]
    return [AskedCaption(scene, caption(scene, rng), int(rng.integers(1 << 31))) for scene in scenes]


def scores_table(name: str, rows: Mapping[str, MeasuredScores]) -> str:
    fields = ("quality", "facts_fraction", "strict", "fine_fraction", "sharpness", "palette_distance")
    lines = [f"| {name} | quality | facts | all facts | fine | sharpness | palette distance |", "|---" * 7 + "|"]
    for label, measured in rows.items():
        lines.append(" | ".join([f"| {label}", *(f"{measured.mean(field):.3f}" for field in fields)]) + " |")
    return "\n".join(lines)


def facts_table(measured: MeasuredScores) -> str:
    """The share of facts that hold, by kind; for shapes, patterns and counts also by value."""
    kinds: dict[str, list[bool]] = defaultdict(list)
    for score in measured.scores:
        for fact, holds in score.held:
            kinds[fact.kind].append(holds)
            if fact.kind in ("shape", "pattern", "count"):
                kinds[f"{fact.kind}: {fact.value}"].append(holds)
    lines = ["| statement | holds | of |", "|---|---|---|"]
    return "\n".join(
        [*lines, *(f"| {kind} | {np.mean(kinds[kind]):.2f} | {len(kinds[kind])} |" for kind in sorted(kinds))]
    )


def calibration(asked: list[AskedCaption]) -> str:
    """The scores of rendered pictures against their own caption and against another one."""
    rng = np.random.default_rng(5)
    pictures = [render(one.scene, rng) for one in asked]
    right = np.mean([score_image(picture, one.scene).quality for picture, one in zip(pictures, asked, strict=True)])
    others = [*asked[1:], asked[0]]
    wrong = np.mean([score_image(picture, one.scene).quality for picture, one in zip(pictures, others, strict=True)])
    return f"Rendered pictures score {right:.3f} against their own caption and {wrong:.3f} against another one."


def write_sheet(measured: MeasuredScores, to: Path) -> None:
    """Paint the first images, enlarged, without their captions."""
    images = measured.images[: SHEET_COLUMNS * 5]
    side = images.shape[1] * SHEET_SCALE
    sheet = Image.new("RGB", (SHEET_COLUMNS * (side + 4), 5 * (side + 4)), "white")
    for index, image in enumerate(images):
        place = (index % SHEET_COLUMNS * (side + 4), index // SHEET_COLUMNS * (side + 4))
        sheet.paste(Image.fromarray(image).resize((side, side), Image.Resampling.NEAREST), place)
    to.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(to)


def size_mb(folder: Path) -> str:
    """Of the weights."""
    return f"{sum(path.stat().st_size for path in folder.rglob('*.safetensors')) / 1e6:.1f}"


def write_distilled_card(count: int, seed: int, card: Path, sheet: Path) -> None:
    teacher, model, asked = ScenesModel.load(), ScenesModel.load(distilled_path()), ask(count, seed)
    full, few = teacher.constants, model.constants
    settings = MeasureSettings(full.default_num_inference_steps, full.default_guidance_scale)
    rows = {
        str(n): measure(model, asked, MeasureSettings(n, few.default_guidance_scale), f"{n} steps", progress)
        for n in DISTILLED_STEP_COUNTS
    }
    write_sheet(rows[str(few.default_num_inference_steps)], sheet)
    rows[f"teacher, {settings.num_inference_steps} guided"] = measure(teacher, asked, settings, "teacher", progress)
    holes = {
        "size_mb": size_mb(distilled_path()),
        "sheet": sheet.as_posix(),
        "params": DistilHyperparameters(),
        "steps": few.default_num_inference_steps,
        "rows": few.default_num_inference_steps,
        "teacher_rows": 2 * full.default_num_inference_steps,
        "count": count,
        "by_steps": scores_table("steps", rows),
    }
    card.write_text(DISTILLED_PAGE.read_text().format_map(holes))


def write_card(count: int, seed: int, card: Path, sheet: Path) -> None:
    began = time.monotonic()
    model, asked = ScenesModel.load(), ask(count, seed)
    steps, guidance = model.constants.default_num_inference_steps, model.constants.default_guidance_scale

    def measured(steps: int, guidance: float, title: str) -> MeasuredScores:
        return measure(model, asked, MeasureSettings(steps, guidance), title, progress)

    by_steps = {str(n): measured(n, guidance, f"{n} steps") for n in STEP_COUNTS}
    by_guidance = {f"{w:g}": measured(steps, w, f"guidance {w}") for w in GUIDANCE_SCALES}
    base = by_guidance.get(f"{guidance:g}") or measured(steps, guidance, "base")
    write_sheet(base, sheet)
    holes = {
        "size_mb": size_mb(model_path()),
        "sheet": sheet.as_posix(),
        "params": Hyperparameters(),
        "steps": steps,
        "guidance": f"{guidance:g}",
        "calibration": calibration(asked),
        "count": count,
        "minutes": f"{(time.monotonic() - began) / 60:.0f}",
        "by_steps": scores_table("steps", by_steps),
        "by_guidance": scores_table("guidance", by_guidance),
        "facts": facts_table(base),
    }
    card.write_text(PAGE.read_text().format_map(holes))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", type=int, default=128)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--distilled", action="store_true", help="the card of the distilled model")
    arguments = parser.parse_args()
    write, name, sheet = write_card, "MODEL_CARD.md", "scenes-contact-sheet.png"
    if arguments.distilled:
        write, name, sheet = write_distilled_card, "DISTILLED_MODEL_CARD.md", "scenes-distilled-contact-sheet.png"
    write(arguments.captions, arguments.seed, Path("scenes") / name, Path("docs/images") / sheet)


if __name__ == "__main__":
    main()
