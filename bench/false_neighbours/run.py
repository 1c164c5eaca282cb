"""How often is a near neighbour another picture, and do words tell? `make bench-false-neighbours` -> a page and a plot.

- 200 minimal pairs of text with a paraphrase each (`pairs.tsv`), by all-MiniLM-L6-v2: taken as near, before and after;
- with PROMPTS=FILE, every prompt's nearest other one in that list;
- captions of the embedded model by its own embedder, and what starting from near ones loses, scored exactly;
- a learned weight of differing words beside the rule.

Drawn pairs come in blocks that are written as they are done; `--drawn FILE` adds those of earlier runs.
"""

import json
import time
from pathlib import Path

import numpy as np
import torch

from bench.false_neighbours.drawn import PARAPHRASE, Document, draw_block, make_pairs
from bench.false_neighbours.losses import as_rows, choices, explained, group_losses
from bench.false_neighbours.page import write_report
from bench.false_neighbours.text_pairs import (
    EDGES,
    RULES,
    TextPair,
    nearest_prompts,
    prompts_of,
    read_pairs,
    shares,
)
from bench.kit.arguments import PROMPTS, BenchParser
from bench.kit.output import say, write_json

NEAREST = 0.8  # drawn pairs
LOSS_EDGES = (NEAREST, *EDGES)
ALL = "all"
TRIAL = {"pairs": 10, "captions": 20, "blocks": 2, "asked": 10, "threads": 1}
PARSER = BenchParser(__doc__, "false-neighbours", quick=TRIAL, page=True)
PARSER.add_input(PROMPTS, needed=False)
PARSER.add_argument("--pairs", type=int, default=200, help="minimal pairs of text")
PARSER.add_argument("--captions", type=int, default=600, help="captions whose neighbours are only embedded")
PARSER.add_argument("--blocks", type=int, default=8, help="of drawn captions")
PARSER.add_argument("--asked", type=int, default=24, help="captions of a block")
PARSER.add_argument("--seed", type=int, default=101, help="of the first block")
PARSER.add_argument("--threads", type=int, default=1, help="for torch; more are slower on a busy machine")
PARSER.add_argument("--drawn", type=Path, nargs="+", default=[], metavar="FILE", help="pairs drawn by earlier runs")


def by_kind(pairs: list[TextPair]) -> list[dict[str, object]]:
    """Shares of each kind of twins with their controls, and of all. Captions' paraphrases are controls of all kinds."""
    kinds = [*sorted({one.kind for one in pairs if not one.is_paraphrase}), ALL]
    rows: list[dict[str, object]] = []
    for kind in kinds:
        own = [one for one in pairs if kind in (one.kind, ALL) or one.kind == PARAPHRASE]
        controls = sum(one.is_paraphrase for one in own)
        counts = {"kind": kind, "pairs": len(own) - controls, "controls": controls}
        rows += [{**counts, **shares(own, edge)._asdict()} for edge in EDGES]
    return rows


def caption_pairs(count: int) -> list[TextPair]:
    """Neighbours of the embedded model's captions, by its embedder; paraphrases are the controls."""
    near = make_pairs(count, np.random.default_rng(29))
    return [TextPair(one.kind, one.asked.text, one.kept.text, one.kind == PARAPHRASE, one.similarity) for one in near]


def main() -> None:
    options = PARSER.parse()
    torch.set_num_threads(options.threads)
    began_s = time.monotonic()
    rows: list[Document] = [row for file in options.drawn for row in json.loads(file.read_text())]
    known = {row["block"] for row in rows}
    for seed in range(options.seed, options.seed + options.blocks):
        if seed not in known:
            rows += draw_block(options.asked, NEAREST, seed)
            write_json(options.out.with_name("false-neighbours-drawn.json"), rows)
            say(f"block {seed} is drawn")
    text = read_pairs(options.pairs)
    listed = [] if options.prompts is None else prompts_of(options.prompts)
    captions = caption_pairs(options.captions)
    figures = {
        "text": by_kind(text),
        "rules": [{"rule": name, **shares(text, EDGES[0], rule)._asdict()} for name, rule in RULES.items()],
        "listed_prompts": len(listed),
        "nearest": as_rows(nearest_prompts(listed)) if listed else [],
        "captions": by_kind(captions),
        "captions_asked": options.captions,
        "drawn_pairs": len(rows),
        "drawn_captions": len({(row["block"], row["asked"]) for row in rows}),
        "losses": {str(edge): as_rows(group_losses(rows, edge)) for edge in LOSS_EDGES},
        "explained": explained(rows),
        "choices": as_rows(choices(rows)),
        "minutes": (time.monotonic() - began_s) / 60,
    }
    write_json(options.out, figures)
    write_report(figures, text, options.results)


if __name__ == "__main__":
    main()
