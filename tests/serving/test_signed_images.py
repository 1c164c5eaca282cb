"""Image files signed by C2PA, as another implementation reads them: who made them, and that nothing changed since."""

import base64
import hashlib
import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from cryptography.x509.oid import ExtendedKeyUsageOID
from PIL import Image

from t2i_policy.profile_document import render_profile
from t2i_protos.v1 import drawing_pb2, gateway_pb2, level_pb2
from t2i_testing_kit.mounted_secrets import mount
from t2i_testing_kit.serving import WITHIN_S, Client, WritePool, make_profile, metric, until
from t2i_testing_kit.signing_certificates import SigningSecret, read_signature, signing_secret
from t2ictl.local_pool import LocalOptions, LocalPool

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module")]
FORMATS = {
    "image/png": level_pb2.OUTPUT_FORMAT_PNG,
    "image/jpeg": level_pb2.OUTPUT_FORMAT_JPEG,
    "image/webp": level_pb2.OUTPUT_FORMAT_WEBP,
}
PROMPT = "a big red circle on a plain green background"


def claims(report: Mapping[str, Any]) -> Mapping[str, Any]:
    """The one action that the file's own manifest claims."""
    told = report["manifest_report"]
    own = told["manifests"][told["active_manifest"]]
    (action,) = next(one["data"]["actions"] for one in own["assertions"] if one["label"].startswith("c2pa.actions"))
    return {**action, "by": own["claim_generator_info"]["name"]}


@pytest.fixture(scope="module")
def secret() -> SigningSecret:
    return signing_secret()


def pool_with_secret(made: LocalOptions, folder: Path, secret: SigningSecret) -> LocalOptions:
    document = yaml.safe_load(made.pool_file.read_text())
    document["spec"]["provenance"] = {"c2pa": {"secretName": "signer"}}
    made.pool_file.write_text(yaml.safe_dump(document))
    mount(folder / "signer", secret.files)
    return replace(made, secrets=folder, listen_http="127.0.0.1:0")


@pytest.fixture(scope="module")
def options(write_pool: WritePool, tmp_path_factory: pytest.TempPathFactory, secret: SigningSecret) -> LocalOptions:
    made = write_pool(workers=1, engine="diffusion", slo_ms=60_000)
    assert made.profile is not None
    made.profile.write_text(render_profile(make_profile((0.05,))))
    return pool_with_secret(made, tmp_path_factory.mktemp("secrets"), secret)


@pytest.mark.parametrize("mime_type", FORMATS)
async def test_another_implementation_reads_who_made_it(client: Client, secret: SigningSecret, mime_type: str) -> None:
    """It is whole, signed by the pool's owner, and made by a model; what is announced is the signed file."""
    events = await client.events(gateway_pb2.GenerateRequest(prompt=PROMPT, output_format=FORMATS[mime_type]))
    data = b"".join(event.chunk.data for event in events if event.HasField("chunk"))
    (info,) = (event.image for event in events if event.HasField("image"))
    assert (info.size_bytes, info.sha256) == (len(data), hashlib.sha256(data).digest())
    report = read_signature(data, mime_type, secret.authority)
    assert (report["validation_state"], report["hard_binding"]) == ("Trusted", "match")
    told = claims(report)
    assert (told["action"], told["by"]) == ("c2pa.created", "t2i-serving")
    assert told["digitalSourceType"].endswith("/trainedAlgorithmicMedia")
    assert told["softwareAgent"] == {"name": "builtin://scenes"}
    Image.open(io.BytesIO(data)).load()
    assert b"AISystemUsed" in data  # what the metadata says is signed with it
    changed = bytearray(data)
    changed[data.index(b"AISystemUsed") + 40] ^= 1
    assert read_signature(bytes(changed), mime_type, secret.authority)["validation_state"] == "Invalid"
    stranger = signing_secret().authority
    assert read_signature(data, mime_type, stranger)["validation_state"] == "Valid"  # whole, but by whom?


async def test_images_of_both_doors_and_made_from_others(
    pool: LocalPool, client: Client, secret: SigningSecret
) -> None:
    """An image that was made from another one says so."""
    body = {"prompt": PROMPT, "n": 2}
    async with httpx.AsyncClient(base_url=f"http://{pool.http_address}", timeout=WITHIN_S) as http:
        answer = (await http.post("/v1/images/generations", json=body)).json()
    files = [base64.b64decode(one["b64_json"]) for one in answer["data"]]
    reports = [read_signature(data, "image/png", secret.authority) for data in files]
    assert [report["validation_state"] for report in reports] == ["Trusted"] * 2
    drawing = drawing_pb2.Drawing(images=drawing_pb2.InputImages(init_image=files[0], strength=0.5))
    events = await client.events(gateway_pb2.GenerateRequest(prompt=PROMPT, drawing=drawing))
    again = b"".join(event.chunk.data for event in events if event.HasField("chunk"))
    source = claims(read_signature(again, "image/png", secret.authority))["digitalSourceType"]
    assert source.endswith("/compositeWithTrainedAlgorithmicMedia")
    assert pool.gateway is not None
    assert await metric(pool.gateway, 't2i_gateway_signing_seconds_count{outcome="signed"}') >= 3


async def test_a_renewed_certificate_is_taken_up(write_pool: WritePool, tmp_path: Path) -> None:
    """Without a restart. One that cannot sign is not, and the one before goes on."""
    first, second = signing_secret(), signing_secret()
    options = pool_with_secret(write_pool(workers=1), tmp_path, first)
    async with LocalPool(options) as pool:
        client, gateway = Client(pool.address), pool.gateway
        assert gateway is not None

        async def reloads(outcome: str) -> float:
            return await metric(gateway, f't2i_gateway_secret_reloads_total{{outcome="{outcome}",use="c2pa"}}')

        async def state(trusted: SigningSecret) -> str:
            events = await client.events(gateway_pb2.GenerateRequest(prompt=PROMPT))
            data = b"".join(event.chunk.data for event in events if event.HasField("chunk"))
            return str(read_signature(data, "image/png", trusted.authority)["validation_state"])

        assert await state(first) == "Trusted"
        mount(tmp_path / "signer", signing_secret(use=ExtendedKeyUsageOID.SERVER_AUTH).files)
        await until("the useless one is refused", lambda: reloads("refused"), lambda seen: seen == 1)
        assert await state(first) == "Trusted"
        mount(tmp_path / "signer", second.files)
        await until("the new one is in force", lambda: reloads("in_force"), lambda seen: seen == 2)
        assert await state(second) == "Trusted"
        await client.channel.close()
