"""The real helm program and our chart, for tests. `python -m helm_chart` (`make chart`) rewrites the golden files."""

import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from t2i_testing_kit.kube.assets import AssetsError, ensure_assets
from t2i_testing_kit.kube.sources import KUBERNETES

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "t2i-serving"
GOLDEN = ROOT / "tests" / "chart" / "golden"
RELEASE, NAMESPACE = "t2i", "t2i-system"
LIMIT_S = 180.0
#: Golden file -> values file beside it; one for each way of using the chart that changes more than one object.
CASES = ("default", "two-namespaces", "everything")

Document = dict[str, Any]


class HelmError(RuntimeError):
    """helm refused; the message is what it wrote."""


@dataclass(frozen=True, slots=True)
class Helm:
    """helm, kept away from the user's own settings, plugins and caches."""

    program: Path
    folder: Path
    kubeconfig: Path | None = None

    def run(self, *arguments: str) -> str:
        """Run helm; its standard output.

        Raises:
            HelmError: it failed.
        """
        places = {f"HELM_{name}_HOME": str(self.folder / name.lower()) for name in ("CACHE", "CONFIG", "DATA")}
        environment = {**os.environ, **places, "KUBECONFIG": str(self.kubeconfig or os.devnull)}
        done = subprocess.run(
            [str(self.program), *arguments],
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
            env=environment,
        )
        if done.returncode != 0:
            raise HelmError(done.stderr.strip() or done.stdout.strip())
        return done.stdout

    def template(self, *arguments: str) -> str:
        """The manifests of a release. A helm built from modules takes clusters to be very old unless told."""
        where = ("--namespace", NAMESPACE, "--kube-version", KUBERNETES)
        return self.run("template", RELEASE, str(CHART), *where, *arguments)

    def objects(self, *arguments: str) -> list[Document]:
        """The same, parsed."""
        return parse(self.template(*arguments))


def parse(manifests: str) -> list[Document]:
    """Every document that holds something."""
    return [document for document in yaml.safe_load_all(manifests) if document]


def of_kind(objects: Iterable[Document], *kinds: str) -> list[Document]:
    """Those of some kinds."""
    return [found for found in objects if found["kind"] in kinds]


def golden_text(helm: Helm, case: str) -> str:
    """What the golden file of a case should hold. The CRD and dashboards are files of their own, compared elsewhere."""
    return helm.template("--values", str(GOLDEN / f"{case}.values.yaml"), "--set", "crds.enabled=false")


def main() -> int:
    """Rewrite the golden files."""
    try:
        program = ensure_assets(lambda text: sys.stderr.write(f"{text}\n"))["helm"]
    except AssetsError as error:
        sys.stderr.write(f"helm_chart: {error}\n")
        return 1
    helm = Helm(program, ROOT / "build" / "helm")
    for case in CASES:
        (GOLDEN / f"{case}.yaml").write_text(golden_text(helm, case))
    return 0


if __name__ == "__main__":
    sys.exit(main())
