"""What the chart renders: golden files, names and labels by convention, images as given."""

import pytest
import yaml

from helm_chart import CASES, CHART, GOLDEN, ROOT, Document, Helm, golden_text, of_kind
from t2i_operator.settings import parse_arguments

DIGEST = "sha256:" + "c" * 64


def test_lint_strict_finds_nothing(helm: Helm) -> None:
    """Also with every optional part switched on."""
    for case in CASES:
        report = helm.run("lint", "--strict", str(CHART), "--values", str(GOLDEN / f"{case}.values.yaml"))
        assert "WARNING" not in report
        assert "ERROR" not in report


@pytest.mark.parametrize("case", CASES)
def test_rendered_as_golden_file(helm: Helm, case: str) -> None:
    """A change of a template shows in review as a change of manifests: `make chart` rewrites the files."""
    assert golden_text(helm, case) == (GOLDEN / f"{case}.yaml").read_text(), "run `make chart` and read the difference"


def test_crd_is_a_copy_of_the_generated_one(helm: Helm) -> None:
    """The chart cannot read outside its folder, so it holds a copy of crds/; both file and rendered object agree."""
    sources = {path.name: path.read_text() for path in (ROOT / "crds").glob("*.yaml")}
    copies = {path.name: path.read_text() for path in (CHART / "files" / "crds").glob("*.yaml")}
    assert copies == sources, "run `make chart`"
    rendered = of_kind(helm.objects(), "CustomResourceDefinition")
    assert [found["spec"] for found in rendered] == [yaml.safe_load(text)["spec"] for text in sources.values()]


def crd_annotations(objects: list[Document]) -> list[dict[str, str]]:
    """Of each CRD."""
    return [found["metadata"].get("annotations", {}) for found in of_kind(objects, "CustomResourceDefinition")]


def test_crd_is_kept_unless_told_otherwise(helm: Helm) -> None:
    """Uninstalling with a CRD that goes would delete every pool."""
    assert [kept["helm.sh/resource-policy"] for kept in crd_annotations(helm.objects())] == ["keep"]
    assert ["helm.sh/resource-policy" in of for of in crd_annotations(helm.objects("--set", "crds.keep=false"))] == [
        False
    ]
    assert crd_annotations(helm.objects("--set", "crds.enabled=false")) == []


def test_labels_by_convention(helm: Helm) -> None:
    """Every object of ours carries the recommended labels; selectors hold no version, or upgrades would be refused."""
    objects = helm.objects("--values", str(GOLDEN / "everything.values.yaml"))
    for found in objects:
        if found["metadata"]["name"].startswith("extra-"):
            continue
        labels = found["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == "t2i-serving", found["metadata"]
        assert labels["app.kubernetes.io/instance"] == "t2i"
        assert labels["app.kubernetes.io/part-of"] == "t2i-serving"
        assert labels["app.kubernetes.io/managed-by"] == "Helm"
        assert {"app.kubernetes.io/component", "app.kubernetes.io/version", "helm.sh/chart"} <= labels.keys()
    for found in of_kind(objects, "Deployment", "StatefulSet"):
        selector = found["spec"]["selector"]["matchLabels"]
        assert selector.keys() == {f"app.kubernetes.io/{part}" for part in ("name", "instance", "component")}
        assert selector.items() <= found["spec"]["template"]["metadata"]["labels"].items()


def test_no_object_names_a_namespace_unless_watched(helm: Helm) -> None:
    """Helm puts objects where the release is; only roles in watched namespaces say otherwise."""
    objects = helm.objects("--set", "operator.watchNamespaces={red,blue}")
    elsewhere = {
        (found["kind"], found["metadata"]["namespace"]) for found in objects if "namespace" in found["metadata"]
    }
    assert elsewhere == {(kind, where) for kind in ("Role", "RoleBinding") for where in ("red", "blue")}
    assert not [found for found in of_kind(objects, "ClusterRole") if found["metadata"]["name"].endswith("-operator")]


def images(objects: list[Document]) -> dict[str, str]:
    """Container name -> image, and the images the operator is told to use."""
    (deployment,) = of_kind(objects, "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    flags = dict(flag.removeprefix("--").split("=", 1) for flag in container["args"])
    return {
        "operator": container["image"],
        "gateway": flags["gateway-image"],
        "worker": flags["worker-image"],
        "test": of_kind(objects, "Pod")[0]["spec"]["containers"][0]["image"],
    }


def test_images_by_tag_digest_and_mirror(helm: Helm) -> None:
    """The appVersion is the default tag, a digest wins, a mirror goes before all."""
    assert set(images(helm.objects()).values()) == {
        f"t2i-serving/{part}:0.1.0" for part in ("operator", "gateway", "worker")
    }
    digests = [f"{part}.image.digest={DIGEST}" for part in ("operator", "gateway", "worker")]
    pinned = images(helm.objects("--set", ",".join([*digests, "imageRegistry=registry.example.com/mirror/"])))
    assert set(pinned.values()) == {
        f"registry.example.com/mirror/t2i-serving/{part}@{DIGEST}" for part in ("operator", "gateway", "worker")
    }


def test_operator_understands_its_flags(helm: Helm) -> None:
    """Every flag of the Deployment is one of the operator's own: a renamed one is a red test, not a crash loop."""
    for case in CASES:
        objects = helm.objects("--values", str(GOLDEN / f"{case}.values.yaml"))
        (container,) = of_kind(objects, "Deployment")[0]["spec"]["template"]["spec"]["containers"]
        parsed = parse_arguments(container["args"], {"T2I_IDENTITY": "pod"})
        assert parsed.identity == "pod"
        assert parsed.lease_namespace == "t2i-system"
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert parsed.metrics_listen == f"[::]:{ports['metrics']}"  # both families: clusters may have IPv6 alone
        assert parsed.health_listen == f"[::]:{ports['health']}"
