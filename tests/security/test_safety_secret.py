"""What a gateway shows to a classifier comes from a Secret; broken ones are told by the file's name."""

import asyncio
import ssl
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from t2i_api.safety import SafetyCheckPart
from t2i_gateway.safety.endpoint import NoAnswer, SafetyEndpoint, parse_answer
from t2i_gateway.safety.secret import EndpointSecret, public_secret, read_endpoint_secret
from t2i_runtime.errors import SecurityError
from t2i_testing_kit.mounted_secrets import TestAuthority, mount
from t2i_testing_kit.played_classifier import played_classifier


async def test_token_is_sent_as_a_bearer_token(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret\n")
    secret = read_endpoint_secret(tmp_path)
    with played_classifier() as classifier:
        endpoint = SafetyEndpoint(SafetyCheckPart(url=classifier.url), lambda: secret)
        assert (await endpoint.ask(b'{"prompt": "a"}', 10)).allowed
        await endpoint.close()
        assert classifier.headers_heard[0]["Authorization"] == "Bearer s3cret"
    assert "s3cret" not in repr(secret)


async def test_endpoint_and_gateway_prove_who_they_are(tmp_path: Path) -> None:
    """Its certificate must be signed by the Secret's ca.crt, and the gateway shows the one of the Secret."""
    home, other = TestAuthority("home"), TestAuthority("other")
    server = mount(tmp_path / "server", home.issue("localhost"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server / "tls.crt", server / "tls.key")
    context.load_verify_locations(server / "ca.crt")
    context.verify_mode = ssl.CERT_REQUIRED
    secrets = {
        "both as they should be": home.issue("gateway"),
        "a certificate that the endpoint does not trust": other.issue("gateway", trusts=[home]),
        "an authority that did not sign the endpoint's": home.issue("gateway", trusts=[other]),
        "no certificate to show": {"ca.crt": home.pem},
    }
    answered = []
    with played_classifier(context) as classifier:
        for number, (what, files) in enumerate(secrets.items()):
            secret = read_endpoint_secret(mount(tmp_path / str(number), files))
            endpoint = SafetyEndpoint(SafetyCheckPart(url=classifier.url), partial(_as_is, secret))
            with suppress(NoAnswer):
                await endpoint.ask(b'{"prompt": "a"}', 10)
                answered.append(what)
            await endpoint.close()
    assert answered == ["both as they should be"]


def _as_is(secret: EndpointSecret) -> EndpointSecret:
    return secret


async def test_question_beyond_the_bound_waits_no_longer_than_its_limit() -> None:
    """A slow endpoint holds as many questions as it may; the next ends at its limit and is never sent."""
    with played_classifier() as classifier:
        endpoint = SafetyEndpoint(SafetyCheckPart(url=classifier.url, max_concurrent=1), public_secret)
        held = asyncio.create_task(endpoint.ask(b'{"prompt": "hang"}', 60))
        assert await asyncio.to_thread(classifier.hangs.wait, 30)
        with pytest.raises(NoAnswer):
            await endpoint.ask(b'{"prompt": "allow"}', 0.3)
        classifier.may_answer.set()
        assert (await held).allowed
        assert [question["prompt"] for question in classifier.heard] == ["hang"]
        await endpoint.close()


@pytest.mark.parametrize(
    "files",
    [{}, {"token": ""}, {"token": "two words"}, {"token": "\x00"}, {"ca.crt": "no PEM"}, {"tls.crt": "no PEM"}],
)
def test_unusable_secret_names_its_file(tmp_path: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(SecurityError, match=str(tmp_path)):
        read_endpoint_secret(tmp_path)


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"allowed": 1}', b'{"allowed": null}', b"\xff", b"[" * 10**5])
def test_answer_of_another_form_is_none(data: bytes) -> None:
    with pytest.raises(NoAnswer):
        parse_answer(data)
