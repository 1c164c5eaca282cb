"""`python -m local_node up|down|status|forget`: a local cluster for people who try things, or run e2e tests often."""

import sys

from local_node.cluster import LocalCluster
from local_node.places import NodeError, Places, default_folder
from t2i_testing_kit.kube.assets import AssetsError, ensure_assets
from t2i_testing_kit.kube.sources import NODE_PROGRAMS, PROGRAMS


def say(text: str) -> None:
    """To people."""
    sys.stderr.write(f"{text}\n")


def open_cluster() -> LocalCluster:
    """The user's own, up or down; builds its programs if need be.

    Raises:
        AssetsError: they cannot be had.
    """
    programs = ensure_assets(say, (*PROGRAMS, *NODE_PROGRAMS))
    return LocalCluster(Places(default_folder(), programs), say)


def main() -> int:
    verb = sys.argv[1] if len(sys.argv) == 2 else ""
    try:
        cluster = open_cluster()
        match verb:
            case "up":
                cluster.up()
                sys.stdout.write(f"export KUBECONFIG={cluster.places.kubeconfig}\n")
            case "down":
                cluster.down()
            case "forget":
                cluster.down(keep_images=False)
            case "status":
                sys.stdout.write("up\n" if cluster.is_up else "down\n")
            case _:
                say(__doc__ or "")
                return 2
    except (AssetsError, NodeError) as error:
        say(f"local_node: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
