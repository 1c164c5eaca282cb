"""Which way to spend less costs least quality? And which ladder of them carries a burst? `make bench-levels`.

Short schedules, a second-order solver, forecasts, guidance tails, skips and compositions meet the same captions and
seeds, the bare loop and the exact scorer. A block has captions of its own. What is drawn is written after each way to
`levels-blocks.json` beside the figures, and a later run goes on from there; `--drawn FILE` adds blocks of elsewhere.
Then the ladder of before and the profile's frontier meet the same arrivals in virtual time (`ladders`).
"""

import json
from dataclasses import asdict
from pathlib import Path

import torch

from bench.kit.arguments import ARRIVALS, PROMPTS, BenchParser
from bench.kit.output import say, write_json
from bench.levels.compared import ComparedWays, Document, draw_block, is_whole
from bench.levels.ladders import SDXL, LadderBench, compare
from bench.levels.page import frontier_rows, write_report
from bench.policy.traces import SEEN, held_out_files

QUICK = {"blocks": 1, "kept": 4, "asked": 8, "minutes": 2.0, "count": 60}
PARSER = BenchParser(__doc__, "levels", quick=QUICK, page=True)
PARSER.add_input(PROMPTS, needed=False)
PARSER.add_input(ARRIVALS, many=True, needed=False)
PARSER.add_argument("--blocks", type=int, default=9)
PARSER.add_argument("--kept", type=int, default=16, help="captions of a block whose final latents are kept")
PARSER.add_argument("--asked", type=int, default=48, help="captions of a block that are measured")
PARSER.add_argument("--seed", type=int, default=100, help="of the first block")
PARSER.add_argument("--drawn", type=Path, nargs="+", default=[], metavar="FILE", help="figures of earlier runs")
PARSER.add_argument("--minutes", type=float, default=40.0, help="length of the burst")
PARSER.add_argument("--count", type=int, default=3000, help="arrivals of every other trace")


def main() -> None:
    options = PARSER.parse()
    arrivals = held_out_files(options.arrivals)
    if options.arrivals and not arrivals:
        PARSER.error(f"{ARRIVALS.option}: each file needs 500 arrivals beyond the first {SEEN}, which were tuned on")
    torch.set_num_threads(1)
    drawn_file = options.out.with_name("levels-blocks.json")
    files = [*options.drawn, *([drawn_file] if drawn_file.exists() else [])]
    known: dict[int, Document] = {block["seed"]: block for file in files for block in json.loads(file.read_text())}

    def save(block: Document) -> None:
        known[block["seed"]] = block
        write_json(drawn_file, [*known.values()])

    for seed in range(options.seed, options.seed + options.blocks):
        if is_whole(known.get(seed, {})):
            continue
        save(draw_block(options.kept, options.asked, seed, save, known.get(seed, {})))
        say(f"block {seed} is drawn")
    compared = ComparedWays.of([block for block in known.values() if is_whole(block)])
    ladders = compare(LadderBench.of(options.prompts, 0, options.minutes, options.count, arrivals))
    figures = {
        **ladders.by_model[SDXL],
        "exact_changed": compared.exact_changed,
        "captions": len(compared.similarity),
        "by_model": ladders.by_model,
        "frontier_rows": frontier_rows(compared),
        "ladder_rows": [asdict(row) for row in ladders.rows],
        "carried_rows": [asdict(row) for row in ladders.carried],
    }
    write_json(options.out, figures)
    write_report(compared, ladders, options.results)


if __name__ == "__main__":
    main()
