"""Does an early look at a run foresee what its image loses, and is it worth acting upon? `make bench-probe`.

Captions that the cache never saw are drawn exactly and at levels that a pool would serve, with the bare loop and the
exact scorer. After the first computed steps a run is looked at (after Probe-Select, arXiv 2603.02829): its clean
estimate, how that moves, what is inside the denoiser. Probes are fitted to some blocks and judged by the others. Then
all deciders may spend the same mean of steps: chance, what is known before, a probe, an oracle.

A block has captions of its own. Each is written to `probe-blocks.json` beside the figures when it is drawn, and a later
run goes on from there.

    foreseen    explained share of losses, and area under the curve for "below the floor", held out
    below       percent of images that lose more than 10 points against exact, by who decides
    better      percent below the floor less than the best decider without a look, in pairs
"""

import json
import time
from dataclasses import asdict
from typing import Any

import torch

from bench.kit.arguments import BenchParser
from bench.kit.output import say, write_json
from bench.probe.drawn import Document, draw_block
from bench.probe.forks import FORKS
from bench.probe.judged import LooksDrawn, judge_fork
from bench.probe.page import write_report

PARSER = BenchParser(__doc__, "probe", quick={"blocks": 2, "kept": 4, "asked": 12}, page=True)
PARSER.add_argument("--blocks", type=int, default=12)
PARSER.add_argument("--kept", type=int, default=16, help="captions of a block whose final latents are kept")
PARSER.add_argument("--asked", type=int, default=48, help="captions of a block that are measured")
PARSER.add_argument("--seed", type=int, default=500, help="of the first block")


def draw_missing(options: Any) -> list[Document]:
    """The blocks of these options; those of the file are not drawn again."""
    file = options.out.with_name("probe-blocks.json")
    known: dict[int, Document] = {}
    if file.exists():
        known = {block["seed"]: block for block in json.loads(file.read_text())}
    seeds = range(options.seed, options.seed + options.blocks)
    for seed in seeds:
        if seed not in known:
            began_s = time.process_time()
            block = draw_block(options.kept, options.asked, seed)
            known[seed] = {**block, "cpu_s": round(time.process_time() - began_s, 1)}
            write_json(file, [*known.values()])
    return [known[seed] for seed in seeds]


def main() -> None:
    options = PARSER.parse()
    torch.set_num_threads(1)
    blocks = draw_missing(options)
    drawn, judged = LooksDrawn.of(blocks), []
    for fork in FORKS:
        judged.append(judge_fork(drawn, fork))
        say(f"{fork.look}: judged")
    minutes = sum(block["cpu_s"] for block in blocks) / 60
    write_json(
        options.out, {"captions": len(drawn.exact), "minutes": minutes, "looks": [asdict(one) for one in judged]}
    )
    write_report(drawn, judged, minutes, options.results)


if __name__ == "__main__":
    main()
