"""How good are stored latents as starts, by the run that left them? `make bench-starts` -> a page and a plot.

Requests resume at K from states of exact, resumed and short runs, and from final latents that are noised anew to K.
All start kinds meet the same captions and seeds, the bare diffusers loop and the exact scorer. A block has sources and
requests of its own, and its figures are written when it is drawn. `--drawn FILE` adds blocks of earlier runs.
"""

import json
import time
from pathlib import Path

from bench.kit.arguments import BenchParser
from bench.kit.output import say, write_json
from bench.starts.compared import Compared, Document, draw_block
from bench.starts.page import write_report

PARSER = BenchParser(__doc__, "starts", quick={"blocks": 1, "sources": 3, "asked": 6}, page=True)
PARSER.add_argument("--blocks", type=int, default=12)
PARSER.add_argument("--sources", type=int, default=12, help="captions of a block whose runs are stored")
PARSER.add_argument("--asked", type=int, default=48, help="requests of a block")
PARSER.add_argument("--seed", type=int, default=41, help="of the first block")
PARSER.add_argument("--drawn", type=Path, nargs="+", default=[], metavar="FILE", help="figures of earlier runs")


def main() -> None:
    options = PARSER.parse()
    blocks: list[Document] = [block for file in options.drawn for block in json.loads(file.read_text())]
    for seed in range(options.seed, options.seed + options.blocks):
        if any(block["seed"] == seed for block in blocks):
            continue
        began_s = time.monotonic()
        blocks.append(draw_block(options.sources, options.asked, seed))
        blocks[-1]["minutes"] = (time.monotonic() - began_s) / 60
        write_json(options.out, blocks)
        say(f"block {seed} is drawn")
    write_report(Compared.of(blocks), sum(block["minutes"] for block in blocks), options.results)


if __name__ == "__main__":
    main()
