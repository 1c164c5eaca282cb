"""The engine against the stock pipelines of the installed diffusers: `make bench-pipelines` -> docs/models.md.

Tiny random models of every family that people serve, in fp32 on the CPU. Keys:

    families           a row each: class, sampler, differences to stock alone, in a batch, resumed at each K
    alone_max          largest difference of final latents to stock, alone (0)
    mixed_max_of_std   the same in a batch, in parts of the latents' standard deviation (<= 1e-4)
    resumed_inexact    the families that a resumed run leaves the whole run's course, and why
    crowds             a row each: many requests at once (race), or at random times (arrivals)
    race_failed        concurrent requests on SDXL, SD3 and FLUX that failed (0)
    race_different     those whose image is not the one drawn alone (0)
    zombies            requests that never ended or left a place taken, in any crowd (0)

A run of a few minutes. `--keep` takes what is not measured anew from the figures of the run before.
"""

import argparse
import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from bench.kit.arguments import BenchParser
from bench.kit.output import say, write_json, write_page
from bench.pipelines.crowd import CrowdFigures, race, random_arrivals
from bench.pipelines.page import crowds_table, models_table, refused_table
from t2i_testing_kit.tiny_pipelines.families import FAMILIES, save_family
from t2i_testing_kit.tiny_pipelines.limits import RESUMED_INEXACT
from t2i_testing_kit.tiny_pipelines.measure import FamilyFigures, measure_family

RACED = ("sdxl", "sd3", "flux-dev")
CROWDED = (*RACED, "flux-kontext", "chroma")  # the others come at random times only
MEASURED = tuple(name for name in FAMILIES if name != "sd15-flagged")  # its images are held back
PARSER = BenchParser(
    __doc__,
    "pipelines",
    quick={"families": ["sdxl", "flux-dev"], "crowded": ["sdxl"], "concurrent": 24, "arrivals": 6},
    page=True,
)
PARSER.set_defaults(results=Path("docs"))
PARSER.add_argument("--families", nargs="*", choices=MEASURED, default=MEASURED, help="some instead of all")
PARSER.add_argument("--crowded", nargs="*", choices=CROWDED, default=CROWDED, help="some crowds instead of all")
PARSER.add_argument("--concurrent", type=int, default=960, help="concurrent requests, over the crowded families")
PARSER.add_argument("--arrivals", type=int, default=40, help="requests at random times, a fifth cancelled")
PARSER.add_argument("--seed", type=int, default=0)
PARSER.add_argument("--keep", action="store_true", help="other rows stay as the last run's figures have them")


def main() -> None:
    options = PARSER.parse()
    torch.set_num_threads(1)
    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
    families, crowds = kept(options.out) if options.keep else ({}, {})
    with tempfile.TemporaryDirectory() as place:
        for name in options.families:
            families[name] = measure_family(name, save_family(name, Path(place) / name))
            say(f"{name}: alone {families[name].alone_max:g}, in a batch {families[name].mixed_max_of_std:.1e}")
        for name in options.crowded:
            crowds |= measure_crowds(name, save_family(name, Path(place) / f"crowd-{name}"), options)
    rows = [families[name] for name in MEASURED if name in families]
    write_page(
        options.results / "models.md",
        Path(__file__).with_name("page.md.in"),
        diffusers=diffusers.__version__,
        transformers=transformers.__version__,
        torch=torch.__version__.partition("+")[0],
        table=models_table(rows),
        crowds=crowds_table(list(crowds.values())),
        refused=refused_table(),
    )
    write_json(options.out, summary(rows, list(crowds.values())))


def kept(file: Path) -> tuple[dict[str, FamilyFigures], dict[str, CrowdFigures]]:
    """The rows of the last run, by name."""
    figures = json.loads(file.read_text())
    for row in figures["families"]:
        row["resumed_of_std"] = {int(step): apart for step, apart in row["resumed_of_std"].items()}
    families = [FamilyFigures(**row) for row in figures["families"]]
    crowds = [CrowdFigures(**row) for row in figures["crowds"]]
    return {row.name: row for row in families}, {row.key: row for row in crowds}


def measure_crowds(name: str, folder: Path, options: argparse.Namespace) -> dict[str, CrowdFigures]:
    found = [random_arrivals(name, folder, options.arrivals, options.seed)]
    if name in RACED:
        found.insert(0, race(name, folder, options.concurrent // len(RACED)))
    for row in found:
        say(f"{row}")
    return {row.key: row for row in found}


def summary(rows: list[FamilyFigures], crowds: list[CrowdFigures]) -> dict[str, Any]:
    inexact = [row.name for row in rows if max(row.resumed_of_std.values()) > 0]
    raced = [row for row in crowds if row.kind == "race"]
    return {
        "diffusers": diffusers.__version__,
        "families": [asdict(row) for row in rows],
        "alone_max": max(row.alone_max for row in rows),
        "mixed_max_of_std": max(row.mixed_max_of_std for row in rows),
        "resumed_inexact": [{"family": name, "reason": RESUMED_INEXACT.get(name, "unknown")} for name in inexact],
        "crowds": [asdict(row) for row in crowds],
        "race_failed": sum(row.failed for row in raced),
        "race_different": sum(row.different for row in raced),
        "zombies": sum(row.zombies for row in crowds),
    }


if __name__ == "__main__":
    main()
