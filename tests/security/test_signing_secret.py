"""What signs images: which certificates can, what is told of others, and that nothing unsigned is sent."""

import datetime
import io
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from PIL import Image
from prometheus_client import CollectorRegistry

from t2i_api.parse import PoolError, parse_pool
from t2i_api.pool import Pool
from t2i_gateway.errors import ImageUnsigned
from t2i_gateway.events import PassedChunk
from t2i_gateway.metrics import GatewayMetrics
from t2i_gateway.request import parse_request
from t2i_gateway.signing import ImageSigner, manifest, open_context, open_signer, read_signing_pair, sign
from t2i_protos.v1 import gateway_pb2, level_pb2, worker_pb2
from t2i_runtime.errors import CertificatesUnusable
from t2i_runtime.tls.certificates import read_certificates
from t2i_runtime.tls.reloading import Reloaded
from t2i_testing_kit.signing_certificates import DAY, read_signature, signing_secret

KEYS = {
    "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "P-521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
    "RSA": lambda: rsa.generate_private_key(65537, 2048),
}


def written(folder: Path, files: Mapping[str, bytes]) -> Path:
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.mark.parametrize("kind", KEYS)
def test_keys_of_every_usual_kind_sign(kind: str, tmp_path: Path) -> None:
    own = signing_secret(KEYS[kind]())
    pair = read_signing_pair(written(tmp_path / "pair", own.files))
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    signed = sign(open_context(pair), manifest("m", "trainedAlgorithmicMedia"), "image/png", file.getvalue())
    assert read_signature(signed, "image/png", own.authority)["validation_state"] == "Trusted"


USELESS: dict[str, tuple[dict[str, bytes], str]] = {
    "nothing is mounted": ({}, "tls.crt cannot be read"),
    "one for servers": (dict(signing_secret(use=ExtendedKeyUsageOID.SERVER_AUTH).files), "emailProtection"),
    "one that has ended": (dict(signing_secret(ends=-DAY).files), "must be valid now"),
    "the key of another": (
        {**signing_secret().files, "tls.key": signing_secret().files["tls.key"]},
        "is not the key of tls.crt",
    ),
    "a curve that C2PA does not know": (
        dict(signing_secret(ec.generate_private_key(ec.SECP256K1())).files),
        "C2PA knows no others",
    ),
}


@pytest.mark.parametrize("case", USELESS)
def test_a_useless_secret_is_told_at_the_start(case: str, tmp_path: Path) -> None:
    """With the field, before anything is served: its words reach the pool's conditions."""
    files, says = USELESS[case]
    with pytest.raises(CertificatesUnusable, match=rf"^provenance\.c2pa\.secretName: .*{says}"):
        open_signer(signing_pool(), written(tmp_path / "pair", files), GatewayMetrics(CollectorRegistry()))


def test_a_missing_folder_or_library_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = GatewayMetrics(CollectorRegistry())
    with pytest.raises(CertificatesUnusable, match="--c2pa-dir"):
        open_signer(signing_pool(), None, metrics)
    monkeypatch.setitem(sys.modules, "c2pa", None)
    with pytest.raises(PoolError, match="install the extra `c2pa`"):
        open_signer(signing_pool(), written(tmp_path / "pair", signing_secret().files), metrics)
    assert open_signer(parse_pool(POOL.replace("c2pa: {secretName: signer}", "")), None, metrics) is None


POOL = """
apiVersion: t2iserving.dev/v1alpha1
kind: T2IServingPool
metadata: {name: p}
spec:
  model: {source: "builtin://scenes"}
  workerGroups: [{name: a, workers: 1}]
  provenance: {c2pa: {secretName: signer}}
"""


def signing_pool() -> Pool:
    return parse_pool(POOL)


async def test_what_cannot_be_signed_is_not_sent(tmp_path: Path) -> None:
    """Such as with a certificate that ends while the gateway runs. Whoever asked may try again."""
    folder = written(tmp_path / "pair", signing_secret(ends=-datetime.timedelta(hours=1)).files)
    pool, metrics = signing_pool(), GatewayMetrics(CollectorRegistry())
    signer = ImageSigner(pool, Reloaded("f", folder, lambda at: read_certificates(at, checks_peers=False)), metrics)
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    chunk = level_pb2.ImageChunk(data=file.getvalue())
    image = [PassedChunk(worker_pb2.WorkerEvent(chunk=chunk).SerializeToString())]
    with pytest.raises(ImageUnsigned, match="try again"):
        await signer.signed(parse_request(gateway_pb2.GenerateRequest(prompt="a"), pool.spec), image, "")
    signer.close()
