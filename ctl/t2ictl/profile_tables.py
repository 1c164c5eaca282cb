"""A profile as people read it in a terminal."""

from rich.table import Table

from t2i_policy.predictor import Predictor
from t2i_policy.profile import JudgedLosses, LevelProfile
from t2i_policy.twin_loss import TwinLoss


def losses_table(profile: LevelProfile, judged: JudgedLosses) -> Table:
    """What one judge says of every level."""
    judge = judged.judge
    table = Table(
        *("level", "runs", "similarity", "loss", "wins", "n", "twins lose", "n", "seeds differ less"),
        title=f"quality loss by {judge.phrase} of prompts and of their twins, mean ± s.e.; images that beat exact;\n"
        "what images of two seeds lose of their difference, which counts for prompts that are asked again",
    )
    for band in judged.losses:
        high = min(band.similarity_max, 1.0)
        near = f"{band.similarity_min:.2f} to {high:.2f}" if band.level.needs_latent else "any"
        table.add_row(
            band.level.label(profile.base_steps),
            f"{profile.cost_of(band.level):.3g}",
            near,
            percent(band.mean_loss, band.standard_error),
            "" if band.win_rate is None else f"{100 * band.win_rate:.0f}%",
            str(band.num_samples),
            *_twin_cells(band.twins),
            "unknown" if band.diversity_loss is None else percent(band.diversity_loss, band.diversity_error),
        )
    return table


def _twin_cells(twins: TwinLoss | None) -> tuple[str, str]:
    if twins is None:
        return "", ""
    return percent(twins.mean_loss, twins.standard_error), str(twins.num_pairs)


def percent(mean: float, error: float) -> str:
    """Of fractions."""
    return f"{100 * mean:.1f} ± {100 * error:.1f}%"


def predictor_table(predictor: Predictor, base_steps: int) -> Table:
    """Every level's curve and the features it weighs, as people read them."""
    table = Table("level", "loss ± margin by similarity", "features", title="learned predictor")
    for one in predictor.levels:
        points = one.curve if one.level.needs_latent else one.curve[:1]
        curve = ", ".join(f"{p.similarity:.2f}: {100 * p.loss:.1f} ± {100 * p.margin:.1f}%" for p in points)
        terms = ", ".join(f"{term.feature} {100 * term.weight:+.1f}%" for term in one.terms) or "none helped"
        label = one.level.label(base_steps)
        table.add_row(label, curve if one.level.needs_latent else curve.partition(": ")[2], terms)
    return table
