"""The page and the plot of how good stored latents are as starts."""

from pathlib import Path

from bench.kit.machine import machine_line
from bench.kit.output import table, write_page
from bench.kit.plots import save_plot, subplots
from bench.starts.compared import FINAL, RESUMED, STARTS, TODAY, Compared, MeanWithError
from bench.starts.stored_runs import SKIPS

SHOWN = {TODAY: "o-", FINAL: "s-", RESUMED[0]: "^--", RESUMED[-1]: "v:"}


def write_report(compared: Compared, minutes: float, folder: Path) -> None:
    write_page(
        folder / "starts.md",
        Path(__file__).with_name("page.md.in"),
        minutes=minutes,
        machine=machine_line(),
        count=len(compared.exact),
        bands="\n\n".join(f"### K={skip}\n\n{_band_table(compared, skip)}" for skip in SKIPS),
        pairs=_pairs_table(compared),
        parents=_parents_table(compared),
        sources=_sources_table(compared),
        passed_on=_passed_on_table(compared),
    )
    _plot(compared, folder / "starts.png")


def _cell(value: MeanWithError) -> str:
    return f"{value.mean:.1f} ± {value.error:.1f}"


def _band_table(compared: Compared, skip: int) -> str:
    bands = compared.bands
    starts = [start for start in STARTS if skip in compared.quality[start]]
    rows = [[start, *(_cell(compared.loss(start, skip, inside)) for inside in bands.values())] for start in starts]
    return table(["start", *(f"{name} (n={inside.sum()})" for name, inside in bands.items())], rows)


def _pairs_table(compared: Compared) -> str:
    """Beside today's start, and beside the final latent of an exact run."""
    rows = []
    for start in STARTS[1:]:
        for other in (TODAY, FINAL):
            cells = [
                _cell(compared.beyond(start, skip, compared.everybody, other))
                if skip in compared.quality[start] and start != other
                else ""
                for skip in SKIPS
            ]
            rows.append([start, other, *cells])
    return table(["start", "beside", *(f"K={skip}" for skip in SKIPS)], rows)


def _parents_table(compared: Compared) -> str:
    rows = []
    for at in SKIPS:
        inside = compared.resumed_at == at
        cells = [_cell(compared.beyond(RESUMED[0], skip, inside, FINAL)) for skip in SKIPS]
        rows.append([f"K={at}", inside.sum(), *cells])
    return table(["the stored run had resumed at", "n", *(f"K={skip}" for skip in SKIPS)], rows)


def _passed_on_table(compared: Compared) -> str:
    bands = {
        "≥ 0.90": compared.similarity >= 0.9,
        "0.70 to 0.90": (compared.similarity >= 0.7) & (compared.similarity < 0.9),
        "< 0.70": compared.similarity < 0.7,
    }
    cells = {name: [compared.passed_on(skip, inside) for skip in SKIPS] for name, inside in bands.items()}
    rows = [[name, *(f"{one.mean:.2f} ± {one.error:.2f}" for one in slopes)] for name, slopes in cells.items()]
    return table(["similarity", *(f"K={skip}" for skip in SKIPS)], rows)


def _sources_table(compared: Compared) -> str:
    exact = compared.source_quality["exact"]
    rows = [[name, _cell(MeanWithError.of(exact - quality))] for name, quality in compared.source_quality.items()]
    return table(["stored run", f"points below its own exact run (n={len(exact)})"], rows)


def _plot(compared: Compared, to: Path) -> None:
    """Loss by band: a panel for each K."""
    figure, axes = subplots(1, len(SKIPS), figsize=(4.2 * len(SKIPS), 3.8), sharey=True)
    bands = {name: inside for name, inside in compared.bands.items() if name != "all"}
    for axis, skip in zip(axes, SKIPS, strict=True):
        for start, style in SHOWN.items():
            losses = [compared.loss(start, skip, inside) for inside in bands.values()]
            means, errors = [one.mean for one in losses], [one.error for one in losses]
            axis.errorbar(range(len(bands)), means, errors, fmt=style, capsize=2, label=start)
        axis.set_xticks(range(len(bands)), list(bands), fontsize=8)
        axis.set_title(f"resumed at K={skip} of 12", fontsize=9)
        axis.set_xlabel("similarity")
        axis.axhline(0, color="gray", linewidth=0.8)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("points below the exact run")
    axes[0].legend(fontsize=8)
    save_plot(figure, to)
