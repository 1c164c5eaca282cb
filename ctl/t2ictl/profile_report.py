"""The report of a profile, for whoever signs for it: Markdown and pictures beside the JSON.

A frontier of loss by time for each judge, skips by similarity band; the tables; and for each judge and level the worst,
the median and the best case side by side with exact.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

from t2i_policy.frontier import choose_ladder
from t2i_policy.level import Level
from t2i_policy.profile import BandLoss, JudgedLosses, LevelProfile
from t2i_profiler.journal import Journal
from t2i_profiler.sample_file import Measurement, PromptScores
from t2ictl.contact_sheet import SheetCell, write_sheet
from t2ictl.profile_tables import percent

MAX_SHEET_LEVELS = 6
RANKS = ("worst", "median", "best")


@dataclass(frozen=True, slots=True)
class ReportFiles:
    """Where the parts of a report lie, all beside the profile."""

    profile: Path

    @property
    def page(self) -> Path:
        return self.profile.with_suffix(".md")

    @property
    def frontier(self) -> Path:
        return self.profile.with_suffix(".frontier.png")

    @property
    def by_similarity(self) -> Path:
        return self.profile.with_suffix(".png")

    def cases(self, judge: int) -> Path:
        """The contact sheet of a judge, counted from 1."""
        return self.profile.with_suffix(".cases.png" if judge == 1 else f".{judge}.cases.png")


@dataclass(frozen=True, slots=True)
class JudgedCase:
    """One asked prompt at one level: its number, and what it lost, as a fraction of mean exact quality."""

    number: int
    prompt: PromptScores
    loss: float


def write_report(profile: LevelProfile, by_judge: Sequence[Measurement], journal: Journal, out: Path) -> list[Path]:
    """All files of it. Contact sheets only where the journal has the pictures."""
    files = ReportFiles(out)
    plot_frontier(profile, files.frontier)
    sheets = {}
    for at, measurement in enumerate(by_judge, 1):
        cells = case_cells(profile, measurement, journal)
        if cells:
            judge = measurement.facts.judge.phrase
            title = f"worst, median and best case of each level by {judge}, each right of its exact image"
            write_sheet(cells, title, files.cases(at), columns=2 * len(RANKS))
            sheets[at] = files.cases(at)
    files.page.write_text(page(profile, by_judge, files, sheets))
    return [files.page, files.frontier, *sheets.values()]


def seconds_of(profile: LevelProfile, level: Level) -> float:
    """One image of this level alone on a worker."""
    step_s = profile.step_s[0] if profile.step_s else 0.0
    return profile.fixed_s + profile.cost_of(level) * step_s


def plot_frontier(profile: LevelProfile, to: Path) -> None:
    """A panel for each judge: loss by seconds an image; skips of each band have a colour, other levels are squares."""
    judged = profile.judged
    figure, panels = plt.subplots(1, len(judged), figsize=(7.5 * len(judged), 5.5), squeeze=False)
    for panel, one in zip(panels[0], judged, strict=True):
        _draw_panel(panel, profile, one)
    figure.tight_layout()
    figure.savefig(to, dpi=110)
    plt.close(figure)


def _draw_panel(panel: mpl.axes.Axes, profile: LevelProfile, judged: JudgedLosses) -> None:
    exact = Level(0, profile.base_steps)
    panel.plot([seconds_of(profile, exact)], [0], "k*", markersize=13, label="exact")
    others = [band for band in judged.losses if not band.level.needs_latent]
    _draw_points(panel, profile, others, "no latent needed", "s")
    bands = sorted({(b.similarity_min, b.similarity_max) for b in judged.losses if b.level.needs_latent})
    for low, high in bands:
        skips = [band for band in judged.losses if band.level.needs_latent]
        inside = [band for band in skips if (band.similarity_min, band.similarity_max) == (low, high)]
        near = "any similarity" if len(bands) == 1 else f"similarity {max(low, 0):.2f} to {min(high, 1):.2f}"
        _draw_points(panel, profile, inside, f"skips, {near}", "o")
    panel.axhline(0, color="black", linewidth=0.8)
    panel.set_xlim(left=0)
    panel.set_xlabel("seconds of one image alone on a worker")
    panel.set_ylabel("quality loss against exact, % ± s.e.")
    panel.set_title(f"{judged.judge.phrase}, {judged.judge.num_images} images", fontsize=11)
    panel.legend(fontsize=8)
    panel.grid(alpha=0.25)


def _draw_points(
    panel: mpl.axes.Axes, profile: LevelProfile, bands: Sequence[BandLoss], label: str, marker: str
) -> None:
    ordered = sorted(bands, key=lambda band: seconds_of(profile, band.level))
    if not ordered:
        return
    times = [seconds_of(profile, band.level) for band in ordered]
    losses, errors = [100 * b.mean_loss for b in ordered], [100 * b.standard_error for b in ordered]
    line = "-" if marker == "o" else "none"
    panel.errorbar(times, losses, errors, marker=marker, linestyle=line, capsize=3, alpha=0.85, label=label)
    for band, x, y in zip(ordered, times, losses, strict=True):
        name = band.level.label(profile.base_steps)
        panel.annotate(name, (x, y), textcoords="offset points", xytext=(4, 4), fontsize=7)


def cases_of(measurement: Measurement, level: Level) -> list[JudgedCase]:
    """Of the first seed, from the worst to the best."""
    exact = sum(one.scored().exact for one in measurement.prompts) / max(1, len(measurement.prompts))
    cases = [
        JudgedCase(at, one, (one.exact[0] - one.by_level[level][0]) / max(exact, 1e-9))
        for at, one in enumerate(measurement.prompts)
    ]
    return sorted(cases, key=lambda case: (-case.loss, case.number))


def case_cells(profile: LevelProfile, measurement: Measurement, journal: Journal) -> list[SheetCell]:
    """Worst, median and best of the cheapest levels that pay, an exact image left of each."""
    cells = []
    levels = [level for level in _levels_shown(profile) if level in measurement.prompts[0].by_level]
    place = {level: at for at, level in enumerate((Level(0, profile.base_steps), *measurement.prompts[0].by_level))}
    for level in levels[:MAX_SHEET_LEVELS]:
        cases = cases_of(measurement, level)
        for rank, case in zip(RANKS, (cases[0], cases[len(cases) // 2], cases[-1]), strict=True):
            exact, drawn = (journal.picture(f"asked-{case.number}-{at}") for at in (0, place[level]))
            if exact is None or drawn is None:
                return []
            cells.append(SheetCell(exact, case.prompt.prompt, "exact"))
            near = f"near {case.prompt.similarity:.2f}: {case.prompt.nearest}" if level.needs_latent else ""
            label = f"{level.label(profile.base_steps)} {rank}: {100 * case.loss:+.1f}%"
            cells.append(SheetCell(drawn, near, label))
    return cells


def _levels_shown(profile: LevelProfile) -> list[Level]:
    """Those that a pool without `levels` would be served at, then the others; the exact one is beside each."""
    exact = Level(0, profile.base_steps)
    chosen = [one for one in choose_ladder(profile.base_steps, (), profile).ladder.levels if one != exact]
    return list(dict.fromkeys([*chosen, *(band.level for band in profile.losses)]))


def page(profile: LevelProfile, by_judge: Sequence[Measurement], files: ReportFiles, sheets: dict[int, Path]) -> str:
    """The Markdown. It holds no prompt; the contact sheets do."""
    first, judged = by_judge[0], profile.judged
    exact_s = seconds_of(profile, Level(0, profile.base_steps))
    parts = [
        f"# Profile of model {profile.model_digest[:16]} on {profile.device}",
        f"{len(first.prompts)} prompts at {len(first.levels) + 1} levels, {_seeds(first)} a prompt and level, the same "
        f"seeds at each; {len(first.twins)} prompts from the latents of a twin. Exact is {profile.base_steps} steps, "
        f"{exact_s:.3g} s alone on a worker.",
        "Loss is the mean quality of exact less that of the level, by the mean of exact (the ratio of means of arXiv "
        "2502.06798). *Wins* is the share of images that score better than the exact one of the same prompt and seed; "
        "half is no difference. Decisions go by the first judge, one standard error above the mean.",
        f"![Loss by time]({files.frontier.name})",
        f"![Loss by similarity]({files.by_similarity.name})",
        _judges_table(judged),
    ]
    for at, one in enumerate(judged, 1):
        parts += [f"## {one.judge.phrase}", _losses(profile, one)]
        if at in sheets:
            parts.append(f"![Worst, median and best cases]({sheets[at].name})")
    if profile.variants:
        parts += ["## Other sizes and adapters", _variants(profile)]
    return "\n\n".join(parts) + "\n"


def _seeds(measurement: Measurement) -> str:
    count = len(measurement.prompts[0].exact)
    return "one image" if count == 1 else f"{count} images"


def _judges_table(judged: Sequence[JudgedLosses]) -> str:
    rows = ["| judge | digest | from | compares with exact | images | largest s.e. |", "|---|---|---|---|---|---|"]
    for one in judged:
        judge, compares = one.judge, "yes" if one.judge.compares else "no"
        error = f"{100 * judge.standard_error:.2f}%"
        rows.append(f"| {judge.kind} | `{judge.digest}` | {judge.source} | {compares} | {judge.num_images} | {error} |")
    return "\n".join(rows)


def _losses(profile: LevelProfile, judged: JudgedLosses) -> str:
    rows = [
        "| level | seconds | similarity | loss ± s.e. | wins | prompts | twins lose |",
        "|---|---|---|---|---|---|---|",
    ]
    for band in judged.losses:
        wins = "" if band.win_rate is None else f"{100 * band.win_rate:.0f}%"
        twins = "" if band.twins is None else percent(band.twins.mean_loss, band.twins.standard_error)
        loss = percent(band.mean_loss, band.standard_error)
        seconds = f"{seconds_of(profile, band.level):.3g}"
        rows.append(
            f"| {band.level.phrase} | {seconds} | {_near(band)} | {loss} | {wins} | {band.num_samples} | {twins} |"
        )
    return "\n".join(rows)


def _near(band: BandLoss) -> str:
    low, high = band.similarity_min, min(band.similarity_max, 1.0)
    return f"{low:.2f} to {high:.2f}" if band.level.needs_latent else "any"


def _variants(profile: LevelProfile) -> str:
    rows = ["| size | adapter | level | similarity | loss ± s.e. | prompts |", "|---|---|---|---|---|---|"]
    for one in profile.variants:
        size = f"{one.width}x{one.height}" if one.width else "default"
        for band in one.losses:
            loss, where = percent(band.mean_loss, band.standard_error), f"{size} | {one.adapter or 'none'}"
            rows.append(f"| {where} | {band.level.phrase} | {_near(band)} | {loss} | {band.num_samples} |")
    return "\n".join(rows)
