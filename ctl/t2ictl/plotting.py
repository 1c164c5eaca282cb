"""The profile as a picture: loss by similarity for every level, and time by batch size."""

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

from t2i_policy.profile import LevelProfile


def plot_profile(profile: LevelProfile, judge: str, to: Path) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.5), width_ratios=(2, 1))
    levels = sorted({band.level for band in profile.losses}, key=lambda level: -level.cost)
    bands = sorted({(b.similarity_min, b.similarity_max) for b in profile.losses if b.level.needs_latent})
    names = [f"{low:.2g}–{min(high, 1):.2g}" if low > -1 else f"< {high:.2g}" for low, high in bands] or ["all"]
    for level in levels:
        own = [band for band in profile.losses if band.level == level]
        label = f"{level.label(profile.base_steps)}: {level.cost} steps"
        if level.needs_latent:
            by_band = {(band.similarity_min, band.similarity_max): band for band in own}
            losses = [100 * by_band[band].mean_loss for band in bands]
            errors = [100 * by_band[band].standard_error for band in bands]
            left.errorbar(range(len(bands)), losses, errors, marker="o", capsize=3, label=label)
        else:
            left.axhline(100 * own[0].mean_loss, linestyle="--", alpha=0.7, color="gray")
            left.text(len(names) - 0.6, 100 * own[0].mean_loss, label, fontsize=8, va="bottom", ha="right")
    left.axhline(0, color="black", linewidth=0.8)
    left.set_xticks(range(len(names)), names)
    left.set_xlim(-0.5, len(names) - 0.5)
    left.set_xlabel("similarity to the nearest cached prompt")
    left.set_ylabel("quality loss against exact, %")
    left.set_title(f"loss by level ({judge}); dashed: short schedules", fontsize=10)
    if bands:
        left.legend(title="skipped: steps run", fontsize=8)
    sizes = range(1, len(profile.step_s) + 1)
    right.plot(sizes, [1e3 * seconds / size for size, seconds in zip(sizes, profile.step_s, strict=True)], marker="o")
    right.set_ylim(bottom=0)
    right.set_xticks(list(sizes))
    right.set_xlabel("batch size")
    right.set_ylabel("ms of one step, per image")
    right.set_title("service time", fontsize=10)
    figure.tight_layout()
    figure.savefig(to, dpi=110)
    plt.close(figure)
