"""The engine against the stock pipelines of the installed diffusers: `make bench-pipelines` -> docs/models.md.

Tiny random models of every family that people serve, in fp32 on the CPU. Keys:

    families           a row each: class, sampler, differences to stock alone, in a batch, resumed at each K
    alone_max          largest difference of final latents to stock, alone (0)
    mixed_max_of_std   the same in a batch, in parts of the latents' standard deviation (<= 1e-4)
    resumed_inexact    the families that a resumed run leaves the whole run's course, and why
    race_failed        concurrent requests on SDXL, SD3 and FLUX that failed (0)
    race_different     those whose image is not the one drawn alone (0)
    zombies            requests at random times, a fifth cancelled, that never ended or left a place taken (0)
"""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from bench.kit.arguments import BenchParser
from bench.kit.output import say, write_json, write_page
from bench.pipelines.crowd import CrowdFigures, race, random_arrivals
from bench.pipelines.page import models_table, refused_table
from t2i_testing_kit.tiny_pipelines.families import FAMILIES, save_family
from t2i_testing_kit.tiny_pipelines.limits import RESUMED_INEXACT
from t2i_testing_kit.tiny_pipelines.measure import FamilyFigures, measure_family

RACED = ("sdxl", "sd3", "flux-dev")
PARSER = BenchParser(
    __doc__, "pipelines", quick={"families": ["sdxl", "flux-dev"], "concurrent": 24, "arrivals": 6}, page=True
)
PARSER.set_defaults(results=Path("docs"))
PARSER.add_argument("--families", nargs="+", choices=sorted(FAMILIES), default=None, help="some instead of all")
PARSER.add_argument("--concurrent", type=int, default=960, help="concurrent requests, over the raced families")
PARSER.add_argument("--arrivals", type=int, default=40, help="requests at random times, a fifth cancelled")
PARSER.add_argument("--seed", type=int, default=0)


def main() -> None:
    options = PARSER.parse()
    torch.set_num_threads(1)
    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        rows = measure_all(options.families or [name for name in FAMILIES if name != "sd15-flagged"], root)
        crowds = measure_crowds(options, root)
    inexact = {
        row.name: RESUMED_INEXACT.get(row.name, "unknown") for row in rows if max(row.resumed_of_std.values()) > 0
    }
    figures: dict[str, Any] = {
        "diffusers": diffusers.__version__,
        "families": [asdict(row) for row in rows],
        "alone_max": max(row.alone_max for row in rows),
        "mixed_max_of_std": max(row.mixed_max_of_std for row in rows),
        "resumed_inexact": [{"family": name, "reason": reason} for name, reason in inexact.items()],
        **{
            f"{kind}_{name}": sum(getattr(crowd, name) for crowd in crowds[kind])
            for kind in crowds
            for name in ("requests", "cancelled", "failed", "different", "zombies")
        },
        "zombies": sum(crowd.zombies for kind in crowds.values() for crowd in kind),
    }
    write_page(
        options.results / "models.md",
        Path(__file__).with_name("page.md.in"),
        diffusers=diffusers.__version__,
        transformers=transformers.__version__,
        torch=torch.__version__.partition("+")[0],
        table=models_table(rows),
        refused=refused_table(),
        figures=figures,
    )
    write_json(options.out, figures)


def measure_all(names: Sequence[str], root: Path) -> list[FamilyFigures]:
    rows = []
    for name in names:
        rows.append(measure_family(name, save_family(name, root / name)))
        say(f"{name}: alone {rows[-1].alone_max:g}, in a batch {rows[-1].mixed_max_of_std:.1e} of the deviation")
    return rows


def measure_crowds(options: argparse.Namespace, root: Path) -> dict[str, list[CrowdFigures]]:
    found: dict[str, list[CrowdFigures]] = {"race": [], "arrivals": []}
    for name in RACED:
        folder = root / f"crowd-{name}"
        save_family(name, folder)
        found["race"].append(race(name, folder, options.concurrent // len(RACED)))
        found["arrivals"].append(random_arrivals(name, folder, options.arrivals, options.seed))
        say(f"{name}: {found['race'][-1]}, {found['arrivals'][-1]}")
    return found


if __name__ == "__main__":
    main()
