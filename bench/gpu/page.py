"""The tables of bench/results/gpu.md."""

from collections.abc import Mapping, Sequence

from bench.gpu.measure import Row
from bench.kit.output import table

MODES = ("eager", "attention", "compiled", "graphs", "fp8")
NO_GPU = (
    "**Nothing is measured yet.** No GPU could be had when this was written. The dry run of all parts with tiny models "
    "on a CPU passes; whatever [speed](../../docs/speed.md) says of GPUs waits for this page."
)


def figures_of(rows: Sequence[Row], ended: Mapping[str, str], device: str) -> str:
    if not rows:
        return NO_GPU
    parts = [
        f"Device: {device or 'a CPU with tiny models, so the figures say nothing'}.",
        *("\n".join(["## " + title, "", shown]) for title, shown in _tables(rows).items()),
        "\n".join(f"- {model}: {how}." for model, how in ended.items()),
    ]
    return "\n\n".join(parts)


def _tables(rows: Sequence[Row]) -> Mapping[str, str]:
    steps = [row for row in rows if row["what"] == "step"]
    return {
        "Milliseconds a step": _steps_table(steps),
        "Images a second": table(
            ("model", "mode", "pixels", "batch", "stock loop", "engine", "ratio"),
            (
                (
                    *(row[name] for name in ("model", "mode", "side", "batch")),
                    f"{row['stock_per_s']:.2f}",
                    f"{row['engine_per_s']:.2f}",
                    f"{row['engine_per_s'] / row['stock_per_s']:.2f}",
                )
                for row in rows
                if row["what"] == "images"
            ),
        ),
        "An image alone": table(
            ("model", "pixels", "steps", "text ms", "a step ms", "VAE ms"),
            (
                (row["model"], row["side"], row["steps"], *(f"{row[name]:.0f}" for name in _PARTS))
                for row in rows
                if row["what"] == "image"
            ),
        ),
        "What was applied": table(
            ("model", "mode", "in use", "seconds"),
            (
                (row["model"], row["mode"], ", ".join(row["used"]) or "nothing", f"{row['seconds']:.1f}")
                for row in rows
                if row["what"] == "applied"
            ),
        ),
        "Built, and what failed": table(
            ("model", "mode", "what", "figure"),
            (
                (row["model"], row["mode"], row.get("part", "built"), row.get("error") or f"{row['seconds']:.1f} s")
                for row in rows
                if row["what"] in ("built", "failed")
            ),
        ),
    }


_PARTS = ("text_ms", "step_ms", "vae_ms")


def _steps_table(steps: Sequence[Row]) -> str:
    """A line for each model, size and batch; a column for each mode."""
    lines: dict[tuple[str, int, int], dict[str, float]] = {}
    for row in steps:
        lines.setdefault((row["model"], row["side"], row["batch"]), {})[row["mode"]] = row["ms"]
    return table(
        ("model", "pixels", "batch", *MODES),
        ((*key, *(f"{by[mode]:.1f}" if mode in by else "" for mode in MODES)) for key, by in lines.items()),
    )
