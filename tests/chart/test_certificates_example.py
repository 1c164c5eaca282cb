"""The certificates that people copy: cert-manager's own schema takes them, and they fit the pool they are for."""

from pathlib import Path

import pytest
import yaml

from cert_manager import crd_files
from example_pools import EXAMPLES, children_of, documents
from t2i_testing_kit.kube.server import KubeServer
from t2i_testing_kit.programs import eventually

FILE = EXAMPLES / "certificates" / "scenes.yaml"
SIGNER = EXAMPLES / "certificates" / "images-signer.yaml"
WITHIN_S = 60.0
NEEDED = {"scenes-gateway-tls", "scenes-gateway-client-tls", "scenes-worker-tls"}


def install(kube: KubeServer, path: Path) -> None:
    """Apply a CRD without the Helm templating of its labels, and wait until it is served."""
    crd = next(yaml.safe_load_all("\n".join(line for line in path.read_text().splitlines() if "{{" not in line)))
    crd["metadata"] = {"name": crd["metadata"]["name"]}
    answer = kube.call("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd)
    assert answer.ok or answer.status == 409, answer.message
    place = f"/apis/cert-manager.io/v1/{crd['spec']['names']['plural']}"
    eventually(place, lambda: kube.call("GET", place).ok, WITHIN_S)


@pytest.mark.process
def test_cert_manager_accepts_the_certificates(kube: KubeServer, namespace: str) -> None:
    """Every field known, every value allowed; a field that does not exist is refused, so the check can fail."""
    for path in crd_files():
        install(kube, path)
    where = ("-n", namespace, "--dry-run=server", "--validate=strict")
    answer = kube.kubectl("apply", *where, "-f", str(FILE))
    assert answer.count("created (server dry run)") == len(documents(FILE))
    signer = kube.kubectl("apply", *where, "-f", str(SIGNER))
    assert signer.count("created (server dry run)") == 1
    certificate = documents(FILE)[-1]
    certificate["spec"]["renewsBefore"] = "1h"
    path = f"/apis/cert-manager.io/v1/namespaces/{namespace}/certificates?dryRun=All&fieldValidation=Strict"
    assert "renewsBefore" in kube.call("POST", path, certificate).message


def test_certificates_fit_the_pool() -> None:
    """Secrets that the pool names are made, for the names that gateway and worker are told to expect."""
    made = {one["spec"]["secretName"]: one["spec"] for one in documents(FILE) if one["kind"] == "Certificate"}
    (pool,) = documents(EXAMPLES / "pool-secured.yaml")
    security = pool["spec"]["security"]
    assert {name for field, name in security.items() if field.endswith("TlsSecretName")} == NEEDED <= made.keys()
    children = {one["kind"]: one for one in children_of("pool-secured.yaml", "default")}
    expected = {
        "Deployment": ("--worker-name=", "scenes-worker-tls"),
        "StatefulSet": ("--gateway-name=", "scenes-gateway-client-tls"),
    }
    for kind, (flag, secret) in expected.items():
        (container,) = children[kind]["spec"]["template"]["spec"]["containers"]
        (name,) = (argument.removeprefix(flag) for argument in container["args"] if argument.startswith(flag))
        assert made[secret]["dnsNames"] == [name]


def test_signer_of_images_fits_its_pool() -> None:
    """The Secret that the pool names, and the uses that a certificate needs to sign by C2PA."""
    (certificate,), (pool,) = documents(SIGNER), documents(EXAMPLES / "pool-signed.yaml")
    assert certificate["spec"]["secretName"] == pool["spec"]["provenance"]["c2pa"]["secretName"]
    assert certificate["spec"]["usages"] == ["digital signature", "email protection"]
