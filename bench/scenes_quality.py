"""The real trade-off of the embedded model: `make bench-scenes` -> bench/results/scenes-quality.md and a plot.

Latents of many captions are kept; captions the cache never saw (paraphrases, one and two edits, fresh scenes) are drawn
in full, resumed at every K from the nearest kept caption, and plainly with as many steps as each K leaves. All with the
bare diffusers loop, the same seeds, and the exact scorer. A resumed run has the noise of its own seed, as in a worker.
Bands are cosines of the shipped embedder. Everything is drawn with a second seed too, for how far its images are apart.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import pyplot as plt

from machine import machine_facts
from t2i_profiler.judge import pixel_distance
from t2i_scenes import Scene, caption, edit_scene, embedder_path, sample_scene, score_image
from t2i_scenes.measuring import AskedCaption, MeasuredScores, MeasureSettings, measure
from t2i_scenes.sampling import ScenesModel
from t2i_sources.embedder import Embedder

RESULTS = Path(__file__).parent / "results"
BANDS = ((0.98, 1.01), (0.95, 0.98), (0.9, 0.95), (0.8, 0.9), (0.7, 0.8), (0.5, 0.7), (-1.0, 0.5))
KINDS: dict[str, int | None] = {"paraphrase": 0, "one edit": 1, "two edits": 2, "fresh": None}
SHARES = (0.3, 0.3, 0.2, 0.2)
EXACT = "exact"
FRACTIONS = (0.1, 0.25, 0.4, 0.5, 0.65, 0.75, 0.9)


@dataclass(frozen=True, slots=True)
class Table:
    """Everything measured, per asked caption: similarity, kind, and scores by way of drawing."""

    steps: int
    similarities: np.ndarray[Any, Any]
    kinds: list[str]
    full: MeasuredScores
    resumed: dict[int, MeasuredScores]
    plain: dict[int, MeasuredScores]
    as_is: list[float]
    spreads: dict[str, np.ndarray[Any, Any]]


def progress(title: str, done: int, total: int) -> None:
    """One line that moves."""
    print(f"\r{title:32} {done}/{total}   ", end="\n" if done == total else "", flush=True)


def ask(kept: Sequence[AskedCaption], count: int, rng: np.random.Generator) -> tuple[list[AskedCaption], list[str]]:
    """Captions that are not among the kept ones, and what they are to them."""
    known = {one.text for one in kept}
    asked: list[AskedCaption] = []
    kinds: list[str] = []
    while len(asked) < count:
        kind = str(rng.choice(list(KINDS), p=SHARES))
        edits = KINDS[kind]
        near: Scene = kept[int(rng.integers(len(kept)))].scene
        scene = sample_scene(rng) if edits is None else edit_scene(near, rng, edits)
        text = caption(scene, rng)
        if text not in known:
            known.add(text)
            asked.append(AskedCaption(scene, text, int(rng.integers(1 << 31))))
            kinds.append(kind)
    return asked, kinds


def measure_all(num_kept: int, num_asked: int, seed: int) -> Table:
    """Draw everything."""
    model, embedder = ScenesModel.load(), Embedder(embedder_path())
    steps, guidance = model.constants.default_num_inference_steps, model.constants.default_guidance_scale
    skips = sorted({round(fraction * steps) for fraction in FRACTIONS} - {0, steps})
    rng = np.random.default_rng(seed)
    scenes = [sample_scene(rng) for _ in range(num_kept)]
    kept = [AskedCaption(scene, caption(scene, rng), int(rng.integers(1 << 31))) for scene in scenes]
    asked, kinds = ask(kept, num_asked, rng)
    cosines = embed(embedder, asked) @ embed(embedder, kept).T
    nearest = cosines.argmax(1)
    source = measure(model, kept, MeasureSettings(steps, guidance, keep_before=skips), "kept captions", progress)
    again = [replace(one, seed=one.seed + 1) for one in asked]
    spreads: dict[str, np.ndarray[Any, Any]] = {}

    def twice(name: str, settings: Callable[[list[AskedCaption]], MeasureSettings]) -> MeasuredScores:
        """Drawn with both seeds; the second only tells how far the images are apart."""
        first, second = (measure(model, ones, settings(ones), name, progress) for ones in (asked, again))
        pairs = zip(first.images, second.images, strict=True)
        spreads[name] = np.array([pixel_distance(one, other) for one, other in pairs])
        return first

    def resume(skip: int, ones: list[AskedCaption]) -> MeasureSettings:
        start = source.latents[skip][torch.from_numpy(nearest)]
        theirs = [kept[near].seed for near in nearest]
        return MeasureSettings(
            steps, guidance, (skip, model.with_own_noise(start, skip, [one.seed for one in ones], theirs))
        )

    def anew(count: int, _: list[AskedCaption]) -> MeasureSettings:
        return MeasureSettings(count, guidance)

    full = twice(EXACT, partial(anew, steps))
    resumed, plain = {}, {}
    for skip in skips:
        resumed[skip] = twice(f"resumed at {skip}", partial(resume, skip))
        plain[skip] = twice(f"plain, {steps - skip} steps", partial(anew, steps - skip))
    as_is = [score_image(source.images[near], one.scene).quality for near, one in zip(nearest, asked, strict=True)]
    return Table(steps, cosines.max(1), kinds, full, resumed, plain, as_is, spreads)


def embed(embedder: Embedder, asked: Sequence[AskedCaption]) -> np.ndarray[Any, Any]:
    """Unit vectors [B,D]."""
    stacked: np.ndarray[Any, Any] = np.stack([embedder.embed_now(one.text).vector for one in asked])
    return stacked


def values(measured: MeasuredScores, name: str, inside: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A field of the scores of the captions of one band."""
    chosen: np.ndarray[Any, Any] = np.array([getattr(score, name) for score in measured.scores])[inside]
    return chosen


def in_bands(table: Table) -> list[tuple[str, np.ndarray[Any, Any]]]:
    """Bands that hold captions, and all."""
    found = []
    for low, high in BANDS:
        inside = (table.similarities >= low) & (table.similarities < high)
        if inside.any():
            found.append((f"≥ {low:.2f}" if low > -1 else f"< {high:.2f}", inside))
    return [*found, ("all", np.ones(len(table.kinds), bool))]


def render(table: Table, took_s: float) -> str:
    """The page."""
    steps, count, facts = table.steps, len(table.kinds), machine_facts()
    skips = list(table.resumed)
    lines = [
        "# Quality of the embedded model by level and similarity",
        "",
        f"`make bench-scenes`, {took_s / 60:.0f} min on {facts['processor']}, {facts['cores']} cores. "
        f"{count} captions the cache never saw; the base schedule has {steps} steps. One seed an image; a second one "
        "for the spread.",
        "Quality = facts × fine (1 = perfect; see `t2i_scenes/scoring.py`). "
        "**Bold**: better than plain sampling with as many steps by more than one standard error of the paired "
        "difference; *italic*: worse by more than one.",
        "",
        "![frontier](scenes-frontier.png)",
        "",
        "## Quality: resumed at K of a similar caption, by similarity to it",
        "",
        f"| similarity | n | K=0 ({steps} steps) | "
        + " | ".join(f"K={skip} ({steps - skip})" for skip in skips)
        + " | cached image as is |",
        "|---" * (len(skips) + 4) + "|",
    ]
    for name, inside in in_bands(table):
        cells = [cell(table, skip, inside) for skip in skips]
        exact = values(table.full, "quality", inside).mean()
        as_is = np.array(table.as_is)[inside].mean()
        lines.append(f"| {name} | {inside.sum()} | {exact:.3f} | " + " | ".join(cells) + f" | {as_is:.3f} |")
    lines += ["", "## Plain sampling with as many steps as each K leaves (fresh noise, no cache)", ""]
    lines += parts_table(table, ["quality", "facts_fraction", "fine_fraction"], table.plain, "plain")
    lines += ["", "## The same for resumed runs, all similarities", ""]
    lines += parts_table(table, ["quality", "facts_fraction", "fine_fraction"], table.resumed, "resumed")
    lines += ["", "## Facts and fine quality by band", ""]
    lines += band_parts(table, skips)
    lines += ["", "## Spread: how far apart two seeds of one caption are, as a share of exact runs", ""]
    lines += spread_table(table, skips)
    lines += ["", "## By what the caption is to the nearest kept one", ""]
    lines += kind_table(table, skips)
    return "\n".join([*lines, "", "## Reading", "", *reading(table), ""])


def cell(table: Table, skip: int, inside: np.ndarray[Any, Any]) -> str:
    """Mean quality, marked by how it compares with plain sampling of the same cost."""
    mine, plain = (values(side[skip], "quality", inside) for side in (table.resumed, table.plain))
    difference = mine - plain
    error = difference.std(ddof=1) / np.sqrt(len(difference)) if len(difference) > 1 else np.inf
    text = f"{mine.mean():.3f}"
    if difference.mean() > error:
        return f"**{text}**"
    return f"*{text}*" if difference.mean() < -error else text


def parts_table(table: Table, names: list[str], by_skip: dict[int, MeasuredScores], title: str) -> list[str]:
    """Facts, fine and quality for each number of steps run."""
    everything = np.ones(len(table.kinds), bool)
    columns = [table.full, *by_skip.values()]
    head = [f"{table.steps} steps", *(f"{table.steps - skip}" for skip in by_skip)]
    lines = [f"| {title} | " + " | ".join(head) + " |", "|---" * (len(head) + 1) + "|"]
    for name in names:
        cells = [f"{values(column, name, everything).mean():.3f}" for column in columns]
        lines.append(f"| {name.removesuffix('_fraction')} | " + " | ".join(cells) + " |")
    return lines


def band_parts(table: Table, skips: list[int]) -> list[str]:
    """Facts / fine of resumed runs in each band."""
    lines = [
        "| similarity | K=0 | " + " | ".join(f"K={skip}" for skip in skips) + " |",
        "|---" * (len(skips) + 2) + "|",
    ]
    for name, inside in in_bands(table):
        columns = [table.full, *(table.resumed[skip] for skip in skips)]
        cells = [
            f"{values(one, 'facts_fraction', inside).mean():.3f} / {values(one, 'fine_fraction', inside).mean():.3f}"
            for one in columns
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def spread_table(table: Table, skips: list[int]) -> list[str]:
    """1.00 = as different as exact images of two seeds; 0 = the same image."""
    lines = ["| similarity | " + " | ".join(f"K={skip}" for skip in skips) + " |", "|---" * (len(skips) + 1) + "|"]
    exact = table.spreads[EXACT]
    for name, inside in in_bands(table):
        kept = [table.spreads[f"resumed at {skip}"][inside].mean() / exact[inside].mean() for skip in skips]
        lines.append(f"| {name} | " + " | ".join(f"{one:.2f}" for one in kept) + " |")
    kept = [table.spreads[f"plain, {table.steps - skip} steps"].mean() / exact.mean() for skip in skips]
    return [*lines, "| plain, as many steps | " + " | ".join(f"{one:.2f}" for one in kept) + " |"]


def kind_table(table: Table, skips: list[int]) -> list[str]:
    """Quality by kind of caption."""
    lines = ["| kind | n | K=0 | " + " | ".join(f"K={skip}" for skip in skips) + " |", "|---" * (len(skips) + 3) + "|"]
    for kind in KINDS:
        inside = np.array([one == kind for one in table.kinds])
        cells = [f"{values(table.resumed[skip], 'quality', inside).mean():.3f}" for skip in skips]
        exact = values(table.full, "quality", inside).mean()
        lines.append(f"| {kind} | {inside.sum()} | {exact:.3f} | " + " | ".join(cells) + " |")
    return lines


def reading(table: Table) -> list[str]:
    """Which way wins at each cost, said from the figures."""
    said = []
    for name, inside in in_bands(table)[:-1]:
        wins: list[str] = []
        loses: list[str] = []
        for skip in table.resumed:
            text = cell(table, skip, inside)
            (wins if text.startswith("**") else loses if text.startswith("*") else []).append(f"K={skip}")
        verdict = "no clear difference at any K"
        if wins or loses:
            verdict = "; ".join(
                part
                for part in (
                    f"resuming wins at {', '.join(wins)}" if wins else "",
                    f"the short schedule wins at {', '.join(loses)}" if loses else "",
                )
                if part
            )
        said.append(f"- similarity {name} ({inside.sum()} captions): {verdict}.")
    return said


def plot(table: Table, to: Path) -> None:
    """Quality against steps run: one panel a band, resumed against plain."""
    bands = in_bands(table)
    figure, axes = plt.subplots(2, -(-len(bands) // 2), figsize=(3.4 * -(-len(bands) // 2), 6.4), sharey=True)
    costs = [table.steps, *(table.steps - skip for skip in table.resumed)]
    for axis, (name, inside) in zip(axes.flat, bands, strict=False):
        for side, label, style in ((table.resumed, "resumed at K", "o-"), (table.plain, "plain, fewer steps", "s--")):
            columns = [values(one, "quality", inside) for one in (table.full, *side.values())]
            errors = [column.std() / np.sqrt(len(column)) for column in columns]
            axis.errorbar(costs, [column.mean() for column in columns], errors, fmt=style, capsize=2, label=label)
        axis.axhline(np.array(table.as_is)[inside].mean(), color="gray", linewidth=0.8, linestyle=":")
        axis.set_title(f"similarity {name} (n={inside.sum()})", fontsize=9)
        axis.set_xlabel("steps run")
        axis.grid(alpha=0.3)
    axes.flat[0].legend(fontsize=8)
    for axis in axes[:, 0]:
        axis.set_ylabel("quality")
    for axis in list(axes.flat)[len(bands) :]:
        axis.set_visible(False)
    figure.suptitle("Dotted: the cached image as it is", fontsize=9)
    figure.tight_layout()
    figure.savefig(to, dpi=110)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kept", type=int, default=300)
    parser.add_argument("--asked", type=int, default=240)
    parser.add_argument("--seed", type=int, default=41)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--out", type=Path, default=Path("build/bench/scenes-quality.json"))
    arguments = parser.parse_args()
    began = time.monotonic()
    table = measure_all(arguments.kept, arguments.asked, arguments.seed)
    arguments.results.mkdir(parents=True, exist_ok=True)
    page = render(table, time.monotonic() - began)
    (arguments.results / "scenes-quality.md").write_text(page)
    plot(table, arguments.results / "scenes-frontier.png")
    rows = {
        name: {
            str(skip): {
                "resumed": float(values(table.resumed[skip], "quality", inside).mean()),
                "plain": float(values(table.plain[skip], "quality", inside).mean()),
            }
            for skip in table.resumed
        }
        for name, inside in in_bands(table)
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    document = {"num_inference_steps": table.steps, "quality_by_band": rows, "machine": machine_facts()}
    arguments.out.write_text(json.dumps(document, indent=1))
    print(page)


if __name__ == "__main__":
    main()
