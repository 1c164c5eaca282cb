"""The whole property campaign over the custom resource: `make bench-crd` -> build/bench/crd-campaign.json.

Every mutation of every field from every state, against a real API server; see `tests/support/pool_campaign.py` for the
oracles. `make test` runs a slice of it. Ends with 1 if anything failed.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from machine import write_result
from t2i_testing_kit.crd.campaign import STATES, cases, run_campaign
from t2i_testing_kit.crd.documents import Pools
from t2i_testing_kit.kube.server import kube_server


def main() -> int:
    """Start a server, run the campaign, write the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/bench/crd-campaign.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        start_s = time.monotonic()
        with kube_server(Path(folder)) as server:
            ready_s = time.monotonic() - start_s
            outcome = run_campaign(Pools(server, "default"), cases())
            took_s = time.monotonic() - start_s - ready_s
    result = {
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
    write_result(options.out, result)
    return 1 if outcome.failures else 0


if __name__ == "__main__":
    sys.exit(main())
