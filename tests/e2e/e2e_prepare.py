"""What takes minutes the first time, before any test's clock runs: the node's programs and the three images.

`python -m e2e_prepare`; `make e2e` calls it. Nothing to do with `E2E_KUBECONFIG`, except to check that it is complete.
"""

import os
import sys
import time

from e2e_images import build_images
from local_node.places import NodeError, check_tools
from t2i_testing_kit.kube.assets import AssetsError, ensure_assets
from t2i_testing_kit.kube.sources import NODE_PROGRAMS, PROGRAMS


def main() -> int:
    """0, or 1 after a line that says what is missing and what to do."""
    begin = time.monotonic()

    def say(text: str) -> None:
        sys.stderr.write(f"e2e [{time.monotonic() - begin:4.0f} s] {text}\n")

    try:
        if "E2E_KUBECONFIG" in os.environ:
            ensure_assets(say)
            return 0
        check_tools()
        ensure_assets(say, (*PROGRAMS, *NODE_PROGRAMS))
        build_images(say)
    except (AssetsError, NodeError) as error:
        sys.stderr.write(f"e2e: {error}\n")
        return 1
    say("programs and images are ready")
    return 0


if __name__ == "__main__":
    sys.exit(main())
