"""The real trade-off of the embedded model: `make bench-scenes` -> bench/results/scenes-quality.md and a plot.

Final latents of many captions are kept. Captions the cache never saw (paraphrases, one and two edits, fresh scenes) are
drawn in full, resumed at every K from the nearest kept caption's, and plainly with as many steps as each K leaves. All
with the bare diffusers loop, the same seeds, and the exact scorer. A resumed run has the noise of its own seed.
Bands are cosines of the shipped embedder. Everything is drawn with a second seed too, for how far its images are apart.
"""

import time

from bench.kit.arguments import BenchParser
from bench.kit.output import write_json
from bench.scenes.drawn import draw_all, values
from bench.scenes.page import write_report

PARSER = BenchParser(__doc__, "scenes", quick={"kept": 12, "asked": 12}, page=True, figures="scenes-quality.json")
PARSER.add_argument("--kept", type=int, default=300)
PARSER.add_argument("--asked", type=int, default=240)
PARSER.add_argument("--seed", type=int, default=41)


def main() -> None:
    options = PARSER.parse()
    began = time.monotonic()
    drawn = draw_all(options.kept, options.asked, options.seed)
    write_report(drawn, (time.monotonic() - began) / 60, options.results)
    rows = {
        name: {
            str(skip): {
                "resumed": float(values(drawn.resumed[skip], inside).mean()),
                "plain": float(values(drawn.plain[skip], inside).mean()),
            }
            for skip in drawn.resumed
        }
        for name, inside in drawn.bands.items()
    }
    write_json(options.out, {"num_inference_steps": drawn.steps, "quality_by_band": rows})


if __name__ == "__main__":
    main()
