"""The whole property campaign over the custom resource: `make bench-crd` -> build/bench/crd-campaign.json.

Every mutation of every field from every state, against a real API server; see `t2i_testing_kit.crd.campaign` for the
oracles. `make test` runs a slice of it. Ends with 1 if anything failed.
"""

import sys
import tempfile
import time
from pathlib import Path

from bench.kit.arguments import BenchParser
from bench.kit.output import write_json
from t2i_testing_kit.crd.campaign import STATES, cases, run_campaign
from t2i_testing_kit.crd.documents import Pools
from t2i_testing_kit.kube.server import kube_server

PARSER = BenchParser(__doc__, "crd", quick={"stride": 40}, figures="crd-campaign.json")
PARSER.add_argument("--stride", type=int, default=1, help="write every n-th mutation only")


def main() -> int:
    options = PARSER.parse()
    start_s = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, kube_server(Path(folder)) as server:
        ready_s = time.monotonic() - start_s
        outcome = run_campaign(Pools(server, "default"), cases(options.stride))
        took_s = time.monotonic() - start_s - ready_s
    figures = {
        "states": len(STATES),
        "tried": outcome.tried.total(),
        "accepted": outcome.accepted,
        "refused": outcome.refused,
        "failures": len(outcome.failures),
        "failed": outcome.failures,
        "tried_by_kind": dict(outcome.tried.most_common()),
        "server_start_s": round(ready_s, 2),
        "campaign_s": round(took_s, 1),
    }
    write_json(options.out, figures)
    return 1 if outcome.failures else 0


if __name__ == "__main__":
    sys.exit(main())
